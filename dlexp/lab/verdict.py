"""The rules of evidence: from numbers to a verdict.

A measurement is a number for each seed. A claim is supported if its inequality holds, by the stated margin,
for every seed, or of five and more for 80 % of them; refuted if the opposite does, or if what is said to
matter (`matters`) is always less than the margin; it depends where the sign changes along a named factor;
all else is inconclusive. A run that has no number (it diverged, failed or is not there) counts for neither
side.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlexp.numbers import compact

SUPPORTED, REFUTED, DEPENDS, INCONCLUSIVE = WORDS = ("supported", "refuted", "depends", "inconclusive")
ENOUGH, MANY, MOST = 3, 5, 0.8  # seeds at the least; so many and this share of them is as good as all
LISTED = 5  # parts that a line lists one by one; of more it tells the ends

Seeds = Mapping[int, float]  # seed -> number; nan of a run that has none


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, in numbers."""

    word: str
    measured: str  # a line: number, spread, seeds, what it is held against
    seeds: int = 0
    number: float | None = None  # the mean over seeds
    spread: float | None = None  # the sample standard deviation
    factor: str | None = None  # what it depends on
    crossing: str | None = None  # and where it changes, e.g. "between 3 and 5"
    parts: tuple[tuple[str, Verdict], ...] = ()  # of a claim at several values, or of several parts

    def says(self, text: str) -> Verdict:
        """The same, with words in front of the numbers."""
        return replace(self, measured=f"{text}: {self.measured}")


def at_least(values: Seeds, bound: float) -> Verdict:
    """Supported if numbers are `bound` or more, refuted if they are less."""
    return _tally(values, lambda x: x >= bound, lambda x: x < bound, f"asked: at least {compact(bound)}")


def at_most(values: Seeds, bound: float) -> Verdict:
    """Supported if numbers are `bound` or less, refuted if they are more."""
    return _tally(values, lambda x: x <= bound, lambda x: x > bound, f"asked: at most {compact(bound)}")


def near(values: Seeds, theory: float, within: float) -> Verdict:
    """Supported if numbers are those of theory, give or take a share `within` of it; refuted if none is."""

    def agrees(x: float) -> bool:
        return abs(x - theory) <= within * abs(theory)

    found = _tally(values, agrees, lambda x: not agrees(x), f"asked: within {within:.0%}")
    number, bracket, rest = found.measured.partition(" (")
    return replace(found, measured=f"{number}, theory {compact(theory)}{bracket}{rest}")


def exceeds(one: Seeds, other: Seeds, by: float) -> Verdict:
    """Paired seeds: supported if `one` is larger by the margin or more, refuted if `other` is."""
    verdict = changes(minus(one, other), by)
    return verdict.says(f"{spread_of(one.values())} against {spread_of(other.values())}, difference")


def minus(one: Seeds, other: Seeds) -> dict[int, float]:
    """Paired differences; nan where one of the two has no number."""
    return {seed: one.get(seed, math.nan) - other.get(seed, math.nan) for seed in {*one, *other}}


def changes(differences: Seeds, by: float) -> Verdict:
    """Of paired differences: supported if they are the margin or more, refuted if the opposite is.

    Args:
        by: the margin, negative where it is to become less.
    """
    sign = -1 if by < 0 else 1
    asked = f"asked: {compact(by)} or {'less' if by < 0 else 'more'}"
    return _tally(differences, lambda x: sign * x >= abs(by), lambda x: sign * x <= -abs(by), asked)


def matters(differences: Seeds, by: float) -> Verdict:
    """Of a claim that something makes a difference at all: the margin or more; refuted if always less.

    So a difference that is shown to be small refutes it, which says nothing against the opposite (`changes`).
    """
    found = at_least(differences, by)
    return replace(found, measured=found.measured.replace("asked: at least", "matters from", 1))


def identity(residuals: Seeds, tolerance: float) -> Verdict:
    """Supported if no number is further from 0 than rounding takes it; refuted if one is."""
    known = [abs(x) for x in residuals.values()]
    if not known or not all(map(math.isfinite, known)):
        return Verdict(INCONCLUSIVE, "no number" if not known else "not every number is finite", len(known))
    word = SUPPORTED if max(known) <= tolerance else REFUTED
    how = "at most" if word == SUPPORTED else "up to"
    said = f"{how} {compact(max(known))} off (tolerance {compact(tolerance)}; {_count(len(known))})"
    return Verdict(word, said, len(known), max(known))


def fact(holds: bool | None, measured: str, number: float | None = None) -> Verdict:
    """What is computed and not drawn at random needs no seeds; None: there is nothing to tell it by."""
    if holds is None:
        return Verdict(INCONCLUSIVE, "no runs")
    return Verdict(SUPPORTED if holds else REFUTED, measured, number=number)


def over(factor: str, verdicts: Mapping[object, Verdict]) -> Verdict:
    """One claim at several values of a factor: where supported and refuted both occur, it depends on it.

    Along numbers in ascending order a single change of sign is told as the crossing.
    """
    if not verdicts:
        return Verdict(INCONCLUSIVE, "no runs")
    words = {value: verdict.word for value, verdict in verdicts.items()}
    found, seeds = set(words.values()), _fewest(verdicts)
    where = factor_at = None
    word = found.pop() if len(found) == 1 else INCONCLUSIVE
    if {SUPPORTED, REFUTED} <= found:
        word, crossing = DEPENDS, _crossing(words)
        factor_at, where = factor, crossing or _named(words)
        factor = f"{factor}, {crossing}" if crossing else factor
    elif DEPENDS in words.values():  # on something within some of the values, at least
        word, where = DEPENDS, _named(words)
        factor_at = " and ".join([*([factor] if found else []), *_factors(verdicts)])
    said = f"by {factor}: {_grouped(verdicts)}{_each(seeds)}"
    parts = tuple((str(value), verdict) for value, verdict in verdicts.items())
    return Verdict(word, said, seeds, factor=factor_at, crossing=where, parts=parts)


def given(controls: Mapping[str, Verdict], verdict: Verdict) -> Verdict:
    """A claim where it can be judged only if something else holds, which is no part of it.

    That the shallow network learns says nothing of the deep one, but without it nothing is known of depth.

    Returns:
        The verdict if each control is supported, else inconclusive, with what is missing.
    """
    missing = {name: control for name, control in controls.items() if control.word != SUPPORTED}
    seeds = min([one.seeds for one in (verdict, *controls.values()) if one.seeds], default=0)
    every = tuple((f"control: {name}", control) for name, control in controls.items())
    parts = (*(verdict.parts or (("measured", verdict),)), *every)
    if missing:
        told = "; ".join(f"{name}: {control.measured}" for name, control in missing.items())
        how = "not met" if any(c.word == REFUTED for c in missing.values()) else "open"
        return Verdict(INCONCLUSIVE, f"control {how}: {told}", seeds, parts=parts)
    controlled = ", ".join(f"{name} {_short(control)}" for name, control in controls.items())
    return replace(verdict, measured=f"{verdict.measured}; control: {controlled}", seeds=seeds, parts=parts)


def all_of(verdicts: Mapping[str, Verdict]) -> Verdict:
    """A claim with several parts: supported if each part is, refuted if one is refuted."""
    if not verdicts:
        return Verdict(INCONCLUSIVE, "no runs")
    words = {name: verdict.word for name, verdict in verdicts.items()}
    found = set(words.values())
    word = next((word for word in (REFUTED, DEPENDS, INCONCLUSIVE) if word in found), SUPPORTED)
    if word == DEPENDS and INCONCLUSIVE in found:
        word = INCONCLUSIVE
    if len(found) > 1 or len(verdicts) > LISTED:
        said = _grouped(verdicts)
    else:
        said = "; ".join(f"{name}: {_short(verdict)}" for name, verdict in verdicts.items())
    factors = _factors(verdicts) if word == DEPENDS else []
    crossings = [verdict.crossing for verdict in verdicts.values() if verdict.word == DEPENDS]
    factor, crossing = " and ".join(factors) or None, crossings[0] if len(factors) == 1 else None
    seeds = _fewest(verdicts)
    parts = tuple(verdicts.items())
    return Verdict(word, f"{said}{_each(seeds)}", seeds, factor=factor, crossing=crossing, parts=parts)


def _factors(verdicts: Mapping[Any, Verdict]) -> list[str]:
    """What those that depend depend on."""
    return list(dict.fromkeys(v.factor for v in verdicts.values() if v.word == DEPENDS and v.factor))


def _each(seeds: int) -> str:
    """What is computed and not drawn at random has none."""
    return f" ({_count(seeds)} each)" if seeds else ""


def _short(verdict: Verdict) -> str:
    """Its numbers without seeds and criterion, which are told once for all of them."""
    return verdict.measured.rpartition(" (")[0] or verdict.measured


def _fewest(verdicts: Mapping[Any, Verdict]) -> int:
    return min(verdict.seeds for verdict in verdicts.values())


def _grouped(verdicts: Mapping[Any, Verdict]) -> str:
    """E.g. "supported at 1 (0.98), 2 (0.97); refuted at 5 (0.1)"; of many the least and the largest."""
    groups = []
    for word in WORDS:
        own = {value: verdict for value, verdict in verdicts.items() if verdict.word == word}
        if not own:
            continue
        numbers = {value: one.number for value, one in own.items() if one.number is not None}
        if len(own) <= LISTED:
            told = ", ".join(f"{value} ({_short(verdict)})" for value, verdict in own.items())
        elif len(numbers) == len(own):
            low, high = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
            count = f"all {len(own)}" if len(own) == len(verdicts) else f"{len(own)} of {len(verdicts)}"
            ends = f", from {low} ({_short(own[low])}) to {high} ({_short(own[high])})"
            same = numbers[low] == numbers[high]
            told = f"{count} ({_short(own[low])})" if same else f"{count}{ends}"
        else:
            told = ", ".join(map(str, own))
        groups.append(f"{word} at {told}")
    return "; ".join(groups)


def _named(words: Mapping[Any, str]) -> str:
    """E.g. "supported at 1, 2; refuted at 5"."""
    found = {word: [str(value) for value, own in words.items() if own == word] for word in WORDS}
    return "; ".join(f"{word} at {', '.join(values)}" for word, values in found.items() if values)


def spread_of(values: Iterable[float]) -> str:
    """Mean and sample standard deviation, e.g. "0.95 ± 0.01"; what has no number is left out and told."""
    numbers = list(values)
    known = [x for x in numbers if math.isfinite(x)]
    missing = len(numbers) - len(known)
    more = f", {missing} without a number" if missing else ""
    if not known:
        infinite = [x for x in numbers if math.isinf(x)]
        return f"{infinite[0]:+}" if infinite == numbers != [] else f"no number{more if numbers else ''}"
    spread = f" ± {compact(statistics.stdev(known))}" if len(known) > 1 else ""
    return f"{compact(statistics.fmean(known))}{spread}{more}"


def _tally(values: Seeds, yes: object, no: object, asked: str) -> Verdict:
    numbers = [float(x) for x in values.values()]
    if not numbers:
        return Verdict(INCONCLUSIVE, "no runs")
    known = [x for x in numbers if not math.isnan(x)]
    finite = [x for x in known if math.isfinite(x)]
    ayes, noes = (sum(bool(test(x)) for x in known) for test in (yes, no))  # type: ignore[operator]
    n = len(numbers)
    word = SUPPORTED if _holds(ayes, n) else REFUTED if _holds(noes, n) else INCONCLUSIVE
    few = f"; {ENOUGH} are needed" if n < ENOUGH else ""
    holds = "" if ayes in (0, n) else f", holds for {ayes}"
    said = f"{spread_of(numbers)} ({_count(n)}{holds}{few}; {asked})"
    mean = statistics.fmean(finite) if finite else None
    spread = statistics.stdev(finite) if len(finite) > 1 else None
    return Verdict(word, said, n, mean, spread)


def _holds(votes: int, n: int) -> bool:
    return n >= ENOUGH and (votes == n or (n >= MANY and votes >= MOST * n))


def _count(n: int) -> str:
    return f"{n} seed{'s' if n != 1 else ''}"


def _crossing(words: Mapping[object, str]) -> str | None:
    """Between which two numbers the sign changes, if it does so once."""
    try:
        decided = [(float(str(value)), value, word) for value, word in words.items()]
    except ValueError:
        return None
    decided = sorted(entry for entry in decided if entry[2] in (SUPPORTED, REFUTED))
    changes = [(a, b) for a, b in itertools.pairwise(decided) if a[2] != b[2]]
    if len(changes) != 1:
        return None
    (_, low, word), (_, high, other) = changes[0]
    return f"{word} up to {low}, {other} from {high} on"

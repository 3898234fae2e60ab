"""The words of a sweep: what they make, and how those of one that goes on may differ from them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from dlexp.compose import FREE, explain
from dlexp.errors import UserError
from dlexp.words import folder_name, key_of, split_words, unquoted

LONGEST_LIST = 80  # characters of the values of a key


@dataclass(frozen=True)
class Command:
    """The words of a sweep, apart from its options: key -> values, in the order in which they stand."""

    values: dict[str, tuple[str, ...]]
    swept: tuple[str, ...]

    def grid(self) -> list[list[str]]:
        """The words of each job of a grid, in Hydra's order."""
        words = [[f"{key}={value}" for value in values] for key, values in self.values.items()]
        return [list(job) for job in itertools.product(*words)]

    def samples(self) -> list[list[str]]:
        """Jobs of a grid, so many that every word stands in one of them."""
        first = {key: values[0] for key, values in self.values.items()}
        varied = [first | {key: value} for key in self.swept for value in self.values[key]]
        return [[f"{key}={value}" for key, value in job.items()] for job in varied or [first]]

    def __str__(self) -> str:
        return " ".join(f"{key}={listed(self.values[key])}" for key in self.swept)


def parse(words: Sequence[str], loader: Any = None) -> Command:
    """Read words as Hydra does, e.g. ["seed=0,1", "model.depth=2"].

    Args:
        loader: Hydra's, which knows what glob(*) stands for; None: it stays as it is.

    Raises:
        UserError: one of them cannot be read.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    except OverrideParseException as error:
        raise UserError(*explain(error)) from error
    values: dict[str, tuple[str, ...]] = {}
    swept = []
    for override in parsed:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = (override.get_value_element_as_str(),)
            continue
        swept.append(key)
        as_typed = (str(override.input_line).partition("=")[2],)
        try:
            discrete = override.is_discrete_sweep()
            values[key] = tuple(map(str, override.sweep_string_iterator())) if discrete else as_typed
        except HydraException:  # a glob, and no loader
            values[key] = as_typed
    return Command(values, tuple(dict.fromkeys(swept)))


def listed(values: Sequence[str]) -> str:
    """Values as typed; of many the first and the last."""
    text = ",".join(values)
    return text if len(text) <= LONGEST_LIST else f"{values[0]},...,{values[-1]} ({len(values)} values)"


def same(one: str, other: str) -> bool:
    """Do two values as typed mean the same, 0.1 and 1e-1 say?"""
    one, other = unquoted(one), unquoted(other)
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def job_name(words: Sequence[str], plan: Mapping[str, Any], number: int) -> str:
    """What the folder of a job is called: its words for what is swept, in the order of the plan.

    A key that was added to a sweep later on names only the jobs that came with it.
    """
    by_key = {key_of(word): word for word in words}
    values, late = split_words(words), plan.get("late") or {}
    shown = [key for key in plan["swept"] if key in by_key and late.get(key) != values[key]]
    return folder_name([by_key[key] for key in shown]) or str(number)


def _is_free(word: str) -> bool:
    """May it differ between a sweep, or a run, and its continuation?"""
    key = key_of(word)
    return key in FREE or (key.startswith("hydra") and not key.startswith("hydra.sweeper.params."))


def differences(before: Command, now: Command) -> tuple[list[str], list[str]]:
    """What two commands differ in, a line each: values that were added to what is swept, and all else."""
    added: list[str] = []
    other: list[str] = []
    for key in dict.fromkeys((*before.values, *now.values)):
        old, new = before.values.get(key, ()), now.values.get(key, ())
        if len(old) == len(new) and all(any(same(x, y) for y in new) for x in old):
            continue
        only_added = key in now.swept and all(any(same(x, y) for y in new) for x in old)
        line = f"{key}: was {listed(old) or 'not there'}, is {listed(new) or 'not there'}"
        (added if only_added else other).append(line)
    return added, other


def continued(resume: str, before: Sequence[str], now: Sequence[str], *, extend: bool = False) -> list[str]:
    """The words to go on with: those of before, or the same with values added; what is free as it is now.

    Raises:
        UserError: they differ, more than by values added to what is swept with `extend`.
    """
    free = [word for word in now if _is_free(word)]
    asked = [word for word in now if not _is_free(word)]
    fixed = [word for word in before if not _is_free(word)]
    if asked:
        added, other = differences(parse(fixed), parse(asked))
        lines = [f"{line}; allowed: the same as before" for line in other]
        if not extend:
            lines += [f"{line}; resume.extend=true adds jobs" for line in added]
        if lines:
            raise UserError(*(f"resume={resume}: {line}" for line in lines))
    typed = {key_of(word) for word in free}
    kept = [word for word in before if _is_free(word) and key_of(word) not in typed]
    return [*(asked or fixed), *kept, *free]

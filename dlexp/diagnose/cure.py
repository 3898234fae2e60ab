"""Is a run better than the one before it? A fix counts if loss, metric and symptom are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlexp.better import lower_is_better
from dlexp.diagnose.finding import Diagnosis
from dlexp.folder import COUNTED

SPLITS = ("validation", "test", "train")  # the first of them that both runs have a loss of
LESS = 0.02  # by which share of itself a loss or an error has to fall
MORE = 0.02  # by how much an accuracy has to rise
WEAKER = 0.5  # of its margin: a symptom that is left but so much weaker is better
Summary = Mapping[str, Any]  # what summary.json holds


def improvements(
    before: Summary,
    after: Summary,
    was: Diagnosis,
    now: Diagnosis,
    metric: str | None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, bool]:
    """Tag of the loss, tag of the metric if there is one, and id of what was found -> is it better?

    Of a run that overfits the metric has only not to be worse: to stop earlier cures the loss alone.

    Args:
        splits: on the first of these that both have numbers of.
    """
    split = _split(splits, before, after)
    names = dict.fromkeys(("loss", metric or "loss"))
    found = {}
    for name in names:
        tag = f"{name}/{split}"
        tolerant = was.primary == "overfit" and name != "loss"
        found[tag] = _is_better(tag, number(before, tag), number(after, tag), tolerant=tolerant)
    if number(before, f"loss/{split}") is None and not _has_learned(after, split):
        found = dict.fromkeys(found, False)  # any number is better than none, but guessing is no cure
    return found | {was.primary: is_better(was, now)}


def is_better(was: Diagnosis, now: Diagnosis) -> bool:
    """Is what was found gone, neither a cause nor explained by one, or much weaker?"""
    if now.primary == "cannot_tell":
        return False
    if was.primary == now.primary:
        return (now.confidence or 0.0) < WEAKER * (was.confidence or 0.0)
    return was.primary not in [one["id"] for one in now.folded]


def is_worse(before: Summary, after: Summary) -> bool:
    """Is the loss higher than before, by more than noise?"""
    tag = f"loss/{_split(SPLITS, before, after)}"
    was, now = number(before, tag), number(after, tag)
    return was is not None and (now is None or now > (1 + LESS) * was)


def number(summary: Summary, tag: str) -> float | None:
    """A loss or a metric; None of a run that diverged or did not come to its end."""
    if summary.get("status") not in COUNTED:
        return None
    found = (summary.get("metrics") or {}).get(tag)
    return None if found is None else float(found)


def _has_learned(summary: Summary, split: str) -> bool:
    """Is the loss below that of a constant answer, as far as that is known?"""
    chance, loss = (summary.get("facts") or {}).get("chance_loss"), number(summary, f"loss/{split}")
    return chance is None or (loss is not None and loss < (1 - LESS) * chance)


def _split(splits: Sequence[str], *summaries: Summary) -> str:
    known = [{tag.partition("/")[2] for tag in summary.get("metrics") or {}} for summary in summaries]
    return next((split for split in splits if all(split in own for own in known if own)), splits[0])


def _is_better(tag: str, before: float | None, after: float | None, *, tolerant: bool) -> bool:
    if after is None:
        return False
    if before is None:
        return True
    sign = 1 if lower_is_better(tag) else -1
    least = LESS * abs(before) if sign == 1 else MORE
    return sign * (before - after) > (-least / 2 if tolerant else least)

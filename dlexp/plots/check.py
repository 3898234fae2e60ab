"""What the functions of this package refuse, each in one line: function, value, what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlexp.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

NOT_NUMBERS = ("step", "layer", "time")  # columns that say what a row is about


def table(call: str, given: pd.DataFrame, needed: Sequence[str], meant: str) -> None:
    """Refuse what is no table, or lacks a column.

    Args:
        call: function and argument, for example "signature: records".
        meant: where such a table comes from, for example "run.records".
    """
    allowed = f"allowed: a table like {meant}"
    if not hasattr(given, "columns") or not hasattr(given, "attrs"):
        raise UserError(f"{call}={shown(given)}: not a table; {allowed}")
    if missing := [name for name in needed if name not in given]:
        have = ", ".join(map(str, given.columns)) or "no columns"
        raise UserError(f"{call} has no column {', '.join(missing)}; it has {have}; {allowed}")


def quantity(call: str, records: pd.DataFrame, name: str) -> None:
    """Refuse what is not a column of numbers."""
    numbers = [str(own) for own in records.select_dtypes("number").columns if own not in NOT_NUMBERS]
    if name not in numbers and not (name in records and name not in NOT_NUMBERS and not len(records)):
        raise UserError(f"{call}={shown(name)}: not a column of numbers; allowed: {', '.join(numbers)}")


def slopes(given: object, quantities: Sequence[str]) -> None:
    """Refuse what is not quantity -> (factor, label)."""
    allowed = f'allowed: {{"delta_rms": (0.25, "at most a quarter")}} with {", ".join(quantities)}'
    if not isinstance(given, Mapping):
        raise UserError(f"signature: slopes={shown(given)}: not a quantity -> (factor, label); {allowed}")
    for name, own in given.items():
        pair = isinstance(own, Sequence) and not isinstance(own, str) and len(own) == 2
        if name not in quantities or not pair or not isinstance(own[0], (int, float)):
            raise UserError(f"signature: slopes={{{name!r}: {shown(own)}}}: {allowed}")


def step(wanted: object, recorded: Sequence[int]) -> None:
    """Refuse a step that was not recorded, and name its neighbours."""
    if wanted in recorded:
        return
    if not isinstance(wanted, int):
        raise UserError(f"signature: step={shown(wanted)}: not a number of a step; {_range(recorded)}")
    below = [own for own in recorded if own < wanted][-1:]
    above = [own for own in recorded if own > wanted][:1]
    nearest = " and ".join(map(str, below + above))
    raise UserError(f"signature: step={wanted}: not recorded; nearest: {nearest}; {_range(recorded)}")


def _range(recorded: Sequence[int]) -> str:
    return f"allowed: a recorded step, {len(recorded)} from {recorded[0]} to {recorded[-1]}"


def shown(given: Any) -> str:
    """A value in few characters, on one line."""
    said = " ".join((given if isinstance(given, str) else repr(given)).split())
    return said if len(said) <= 60 else f"{said[:59]}…"

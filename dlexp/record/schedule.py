"""When to record: a step number goes in, yes or no comes out."""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int], bool]

EARLY = (0, 1, 2, 5, 10, 20)  # a signal that is lost is lost at the start
EVENLY = 40


def schedule(every: int | str, steps: int) -> Schedule:
    """The schedule of a run of `steps` steps.

    Args:
        every: a number n for steps 0, n, 2n, ...; "auto" for `EARLY` and some `EVENLY` more, evenly;
            "never". The last step belongs to every schedule but "never".
    """
    if every == "never":
        return frozenset[int]().__contains__
    last = steps - 1
    if every == "auto":
        evenly = (round(last * i / EVENLY) for i in range(EVENLY + 1))
        return frozenset(step for step in (*EARLY, *evenly) if step <= last).__contains__
    n = int(every)
    return lambda step: step <= last and (step % n == 0 or step == last)

"""Numbers in few characters."""

from __future__ import annotations

import math


def compact(x: float | None) -> str:
    """A number in at most 7 characters: 0.0123, 1.2e-5, – for none; inf and nan as they are."""
    if x is None:
        return "–"
    if not math.isfinite(x):
        return str(x)
    if x == 0 or 0.001 <= abs(x) < 999.5:
        return f"{x:.3g}"
    if 999.5 <= abs(x) < 99_999.5:
        return f"{x:.0f}"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def duration(seconds: float) -> str:
    """E.g. "2.1 s", "4 min 10 s", "3 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(x: float | None) -> str:
    """A share in per cent; one that is nearly 0 or 1 does not look like it."""
    if x is None:
        return "–"
    if 0 < x <= 0.005 or 0.995 <= x < 1:
        return "<1%" if x < 0.5 else ">99%"
    return f"{x:.0%}"

"""Which code made a number: versions alone do not tell while somebody works on dlexp."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

MAKES_NUMBERS = ("build", "data", "train", "record")


@cache  # it does not change while a process runs
def code() -> str:
    """Eight letters that change with any line of the packages that make the numbers of a run."""
    top = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for name in MAKES_NUMBERS for path in (top / name).rglob("*.py")):
        digest.update(path.relative_to(top).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]

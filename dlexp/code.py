"""Which code made a number: versions alone do not tell while somebody works on dlexp."""

from __future__ import annotations

import hashlib
from pathlib import Path

MAKES_NUMBERS = ("build", "data", "train", "record", "parameters.py", "profile.py", "runner.py", "theory.py")


def digest(top: Path) -> str:
    """Eight letters that change with any line of what makes the numbers of a run."""
    paths = [top / name for name in MAKES_NUMBERS]
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    found = hashlib.sha256()
    for file in files:
        found.update(file.relative_to(top).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:8]


CODE = digest(Path(__file__).parent)  # as it is when it is loaded, not when a run ends

"""Which code made a number."""

from __future__ import annotations

from pathlib import Path

import dlexp
from dlexp.code import CODE, MAKES_NUMBERS, digest

TOP = Path(dlexp.__file__).parent


def test_it_changes_with_any_line_that_makes_numbers(tmp_path: Path) -> None:
    """Whatever a file is called, and not with what only tells of numbers."""
    paths = [tmp_path / name for name in MAKES_NUMBERS]
    files = [path if path.suffix else path / "deep" / "a.py" for path in paths]
    told = tmp_path / "report" / "a.py"
    for file in (*files, told):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    before = digest(tmp_path)
    assert before == digest(tmp_path) and len(before) == 8
    told.write_text("x = 2\n")
    assert digest(tmp_path) == before
    seen = {before}
    for file in files:
        file.write_text("x = 2\n")
        seen.add(digest(tmp_path))
    files[0].rename(files[0].with_name("b.py"))
    seen.add(digest(tmp_path))
    assert len(seen) == 2 + len(files)


def test_it_is_that_of_dlexp() -> None:
    """All that is named is there."""
    assert digest(TOP) == CODE
    assert all((TOP / name).is_file() or any((TOP / name).glob("*.py")) for name in MAKES_NUMBERS)

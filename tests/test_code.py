"""Which code made a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlexp.code import MAKES_NUMBERS, code


def test_it_changes_with_any_line_that_makes_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file is called, and not with what only tells of numbers."""
    for name in (*MAKES_NUMBERS, "report"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr("dlexp.code.__file__", str(tmp_path / "code.py"))
    fresh = code.__wrapped__
    before = fresh()
    assert before == fresh() and len(before) == 8
    (tmp_path / "report" / "deep" / "a.py").write_text("x = 2\n")
    assert fresh() == before
    seen = {before}
    for name in MAKES_NUMBERS:
        (tmp_path / name / "deep" / "a.py").write_text("x = 2\n")
        seen.add(fresh())
    (tmp_path / "train" / "deep" / "a.py").rename(tmp_path / "train" / "deep" / "b.py")
    seen.add(fresh())
    assert len(seen) == 2 + len(MAKES_NUMBERS)


def test_dlexp_has_all_of_them() -> None:
    top = Path(__file__).parent.parent / "dlexp"
    assert all(any((top / name).glob("*.py")) for name in MAKES_NUMBERS)

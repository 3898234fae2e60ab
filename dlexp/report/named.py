"""What a person named behind `dlexp report` or `dlexp doctor`: the folder of a run or of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlexp.errors import UserError
from dlexp.folder import CONFIG, PLAN, SUMMARY
from dlexp.report.jobs import is_job

SHOWN = 5  # folders that are named where none was found


class Named(NamedTuple):
    """A folder, and how it is to be shown."""

    folder: Path
    is_sweep: bool
    options: frozenset[str]


def named(command: str, words: Sequence[str], options: Sequence[str], conflict: str) -> Named:
    """Read the words behind a command: one folder, or `latest`, and options.

    Args:
        conflict: why only one of the options can be had.

    Raises:
        UserError: there is no such folder or option.
    """
    paths = [word for word in words if not word.startswith("--")]
    typed = [word for word in words if word.startswith("--")]
    said = f"{command} {' '.join(words)}".rstrip()
    if unknown := [word for word in typed if word not in options]:
        raise UserError(f"{said}: no option {unknown[0]}; allowed: {', '.join(options)}")
    if len(set(typed)) > 1:
        raise UserError(f"{said}: {conflict}; leave one of them out")
    if len(paths) != 1:
        what = "name the folder of a run or of a sweep" if not paths else "one folder at a time"
        raise UserError(f"{said}: {what}, for example dlexp {command} outputs/sweep/...")
    folder = latest(command) if paths == ["latest"] else Path(paths[0]).expanduser()
    return Named(folder, _is_sweep(folder, command), frozenset(typed))


def latest(command: str, outputs: Path = Path("outputs")) -> Path:
    """The run or sweep whose files changed last."""
    places = (*outputs.glob(f"sweep/*/{PLAN}"), *outputs.glob(f"*/*/{CONFIG}"))
    if not places:
        raise UserError(f"{command} latest: nothing in {outputs}; allowed: a folder")
    return max(places, key=lambda path: path.stat().st_mtime_ns).parent


def _is_sweep(folder: Path, command: str) -> bool:
    """Whether it holds a sweep, or else a run; any folder with folders of runs will do.

    Raises:
        UserError: neither.
    """
    if not folder.is_dir():
        raise UserError(f"{command} {folder}: {'no such folder' if not folder.exists() else 'not a folder'}")
    if (folder / PLAN).is_file():
        return True
    if is_job(folder):
        return False
    if any(is_job(path) for path in folder.iterdir()):
        return True
    inside = [
        path.parent for depth in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(f"{depth}/{SUMMARY}")
    ]
    holders = {run.parent if run.parent.parent.name == "sweep" else run for run in inside}
    found = sorted(holders, key=lambda path: path.name)  # the name is a date
    hint = f"; try {', '.join(map(str, found[-SHOWN:]))}" if found else ""
    raise UserError(f"{command} {folder}: holds neither a run nor a sweep{hint}")

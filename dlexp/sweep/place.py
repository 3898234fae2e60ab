"""The folder of a sweep: made for it alone, found again, taken away if it came to nothing."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import setup_globals
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlexp import folder as folders
from dlexp.errors import UserError
from dlexp.folder import PLAN
from dlexp.words import unquoted

STUDY = "study.db"  # Optuna's storage in the folder
OURS = (PLAN, "multirun.yaml", STUDY, folders.LOCK)


class Place(NamedTuple):
    """The folder of a sweep, and what somebody had put there before; None: there was no folder."""

    folder: Path
    found: frozenset[str] | None

    def unmake(self) -> bool:
        """Take away what a sweep left that came to no job; False, and nothing done, if it did."""
        new = {path.name for path in self.folder.iterdir()} - (self.found or frozenset())
        if not new <= set(OURS):
            return False
        for name in new:
            (self.folder / name).unlink()
        if self.found is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return True


def new_place(words: Sequence[str], outputs: str) -> Place:
    """outputs/sweep/date_time, or the one that `words` name; sweeps of the same second get _2, _3, ...

    Raises:
        UserError: no folder can be made there, or it holds a sweep already.
    """
    for word in words:
        key, _, value = word.partition("=")
        if key == "hydra.sweep.dir":
            return _claimed(Path(_resolved(unquoted(value))))
    return Place(folders.create(outputs, "sweep", datetime.now(), inside="."), None)


def _resolved(value: str) -> str:
    """With what ${now:...} and the like stand for."""
    setup_globals()
    try:
        return str(OmegaConf.create({"dir": value}).dir)
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.sweep.dir={value}: {str(error).splitlines()[0]}") from error


def _claimed(folder: Path) -> Place:
    """A folder that somebody named."""
    try:
        found = frozenset(path.name for path in folder.iterdir()) if folder.exists() else None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).touch(exist_ok=False)  # fails if another process made it just now
    except FileExistsError as error:
        raise UserError(
            f"hydra.sweep.dir={folder}: holds a sweep already; allowed: another folder, resume={folder}"
        ) from error
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder}: cannot be made: {error.strerror}") from error
    return Place(folder, found)


def plan_of(folder: Path) -> dict[str, Any]:
    """What the sweep in `folder` was asked for.

    Raises:
        UserError: there is no sweep.
    """
    if found := folders.read_json(folder / PLAN):
        return found
    if not folder.is_dir():
        close = difflib.get_close_matches(str(folder), ["latest"], n=1)
        hint = "did you mean latest?" if close else "allowed: latest, the folder of a sweep"
        raise UserError(f"resume={folder}: no such folder; {hint}")
    if (folder / folders.OVERRIDES).exists():
        raise UserError(f"resume={folder}: is a single run; leave out -m")
    raise UserError(f"resume={folder}: holds no sweep ({PLAN}); allowed: the folder of a sweep")


def latest(outputs: str, pattern: str, marker: str) -> Path:
    """The folder of that kind that was begun last.

    Raises:
        UserError: there is none.
    """
    found = [path for path in Path(outputs).expanduser().glob(pattern) if (path / marker).exists()]
    if not found:
        raise UserError(f"resume=latest: nothing in {outputs} to go on with; allowed: resume=PATH")
    return max(found, key=lambda path: (path / marker).stat().st_mtime_ns)

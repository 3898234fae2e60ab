"""A run that was interrupted goes on: the checkpoint in its folder, and what else an earlier try left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dlexp import folder as folders
from dlexp.compose import FREE, Request, flatten
from dlexp.errors import UserError
from dlexp.record.sinks import Appended
from dlexp.report.terminal import Terminal
from dlexp.train import checkpoint
from dlexp.train.checkpoint import Part, Timetable


def take_up(folder: Path, request: Request, terminal: Terminal) -> dict[str, Any] | None:
    """The checkpoint that a run can go on from; None: it begins anew, and the earlier record is gone.

    A checkpoint that cannot be read is none, nor is one whose record is no longer there.

    Raises:
        UserError: it is that of another run; nothing was changed.
    """
    found = checkpoint.load(folder / folders.CHECKPOINT)
    if found and (lines := differences(found["asked"], asked(request))):
        raise UserError(*(f"resume={folder}: {line}; allowed: the words of that run" for line in lines))
    if found and not folders.goes_on(folder, found["files"]):
        found = None
    if found:
        terminal.remark(f"goes on after {found['step']} steps")
    elif (folder / folders.CHECKPOINT).exists():
        terminal.remark(
            "begins anew: the checkpoint cannot be read, or the record that belongs to it is gone"
        )
    elif (folder / folders.RECORDS).exists():
        terminal.remark("begins anew: there is no checkpoint")
    folders.clear(folder, records=found is None)
    return found


def asked(request: Request) -> dict[str, Any]:
    """What decides the numbers of a run: group -> word, key -> value."""
    plain: Any = OmegaConf.to_container(request.config)
    groups = {name: value for name, value in plain.items() if isinstance(value, dict) and "_target_" in value}
    words = {group: request.choices.get(group) for group in groups}
    targets = {f"{group}._target_": value["_target_"] for group, value in groups.items()}
    values = words | targets | flatten(plain)
    return {key: value for key, value in values.items() if key not in FREE}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each key whose value is another; of a group whose word is another, that word alone."""
    keys = [key for key in dict.fromkeys((*before, *now)) if before.get(key) != now.get(key)]
    keys = [key for key in keys if "." not in key or key.partition(".")[0] not in keys]
    return [f"was begun with {key}={before.get(key)}, not {now.get(key)}" for key in keys]


class Keeper:
    """Writes the checkpoints of one run, and puts back the one that it goes on from."""

    def __init__(
        self, folder: Path, request: Request, terminal: Terminal, before: Mapping[str, Any] | None
    ) -> None:
        self._path, self._asked, self._before = folder / folders.CHECKPOINT, asked(request), before
        self._terminal, self._complained = terminal, False
        self._begun = time.perf_counter() - (before["seconds"] if before else 0.0)
        self._parts: dict[str, Part] = {}
        self._files: list[Appended] = []
        self.started: str = before["started"] if before else folders.now()
        self.step: int = before["step"] if before else 0  # the one to begin with
        self.lengths: dict[str, int] = before["files"] if before else {}  # of the files that go on
        self._timetable = Timetable(request.config.train.checkpoint_every, self.step)

    @property
    def seconds(self) -> float:
        """That the run has taken, without what was lost when it was interrupted."""
        return time.perf_counter() - self._begun

    def keep(self, parts: Mapping[str, Part | None], files: Sequence[object]) -> None:
        """From now on these parts and the lengths of these files are kept; what was kept before is put back.

        Raises:
            UserError: a part is no longer what it was, the data or a module of one's own say.
        """
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self._files = [file for file in files if isinstance(file, Appended)]
        if self._before is None:
            return
        try:
            checkpoint.put_back(self._parts, self._before["parts"])
        except Exception as error:
            text = " ".join(f"{error}".split())
            raise UserError(f"{self._path}: does not fit what these words make now: {text}") from error
        self._before = None  # tensors need not stay in memory twice

    def due(self, step: int) -> bool:
        """Is a checkpoint to be written before this step?"""
        return self._timetable.due(step)

    def write(self, step: int) -> None:
        """Write one; where that cannot be, the last one stays, and the run goes on."""
        start = time.perf_counter()
        try:
            content = {
                "step": step,
                "asked": self._asked,
                "started": self.started,
                "seconds": self.seconds,
                "files": {file.name: file.length() for file in self._files},
                "parts": checkpoint.states(self._parts),
            }
            folders.write_whole(self._path, lambda draft: checkpoint.save(draft, content))
        except OSError as error:
            if not self._complained:
                what = f"checkpoint  cannot be written: {error.strerror}; the run goes on without"
                self._terminal.remark(what)
            self._complained = True
        self._timetable.took(time.perf_counter() - start)

    def remove(self) -> None:
        """There is nothing left to go on with."""
        self._path.unlink(missing_ok=True)

"""The folder of a run or a sweep: what its files are called; made once, never shared, never overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Any

from dlexp.errors import BusyError, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG = ".hydra"
RECORDS = "records.jsonl"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
WEIGHTS = "weights.pt"
CHECKPOINT = "checkpoint.pt"
EVENTS = "events.out.tfevents."
OVERRIDES = f"{CONFIG}/overrides.yaml"  # the words that made a run
PLAN = "sweep.json"  # what a sweep was asked for; its presence makes a folder that of a sweep
LOCK = "lock"
TRACE = "error.log"  # of a job that failed
PICTURES = ("layers.png", "curves.png")  # of a single run, from `dlexp report`
PAGE = "report.html"
SPLITS = ("train", "train_dev", "validation", "test")  # as they are told
ENDED = ("finished", "stopped_early", "diverged")  # a run with such a status has nothing left to do
COUNTED = ("finished", "stopped_early")  # the numbers of these are compared
UNFINISHED = "unfinished"  # no summary: the run still goes on, or was killed
NOT_BEGUN = "not begun"  # planned, but there is no folder


def now() -> str:
    """The time, to the millisecond, as summaries have it: jobs of a sweep are put in order by it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def create(outputs: str, name: str, when: datetime, inside: str = CONFIG) -> Path:
    """A new folder outputs/name/date_time; runs that start in the same second get _2, _3, ...

    Args:
        inside: what is made in it, too.

    Raises:
        UserError: no folder can be made there.
    """
    base = Path(outputs).expanduser() / name / when.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for n in count(1):
            folder = base if n == 1 else base.with_name(f"{base.name}_{n}")
            try:
                folder.mkdir()  # fails if it is there, also if another process made it just now
                (folder / inside).mkdir(exist_ok=True)
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise UserError(f"outputs={outputs}: no run folder can be made there: {error.strerror}") from error
    raise AssertionError("unreachable")


def claim(folder: Path) -> Path:
    """A folder that somebody named; it may be there, but not hold a run.

    Raises:
        UserError: it holds a run already, or cannot be made.
    """
    held = f"hydra.run.dir={folder}: holds a run already; allowed: a folder without"
    for name in (RECORDS, METRICS, SUMMARY):
        if (folder / name).exists():
            raise UserError(f"{held} {name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).mkdir()  # the claim: fails if another process made it just now
    except FileExistsError as error:
        if folder.is_dir():
            raise UserError(f"{held} {CONFIG}") from error
        raise UserError(f"hydra.run.dir={folder}: cannot be made: {error.strerror}") from error
    except OSError as error:
        raise UserError(f"hydra.run.dir={folder}: cannot be made: {error.strerror}") from error
    return folder


@contextmanager
def locked(folder: Path, inside: str = CONFIG) -> Iterator[None]:
    """Nobody else runs in this folder meanwhile; a process that is killed lets go of it.

    Where the system or the disk knows no locks, nothing is locked.

    Raises:
        BusyError: somebody does.
        UserError: the folder cannot be written to.
    """
    path = folder / inside / LOCK
    try:
        path.parent.mkdir(exist_ok=True)
        file = _lock(path, folder) if fcntl else None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)  # first: whoever opened it meanwhile will see that it is gone
            file.close()


def _lock(path: Path, folder: Path) -> IO[str]:
    """The file, open and locked, our number in it; it is the one that others find under this name."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read() or "unknown"
            file.close()
            raise BusyError(f"{folder}: is still running (pid {pid})") from error
        except OSError:  # this disk knows no locks
            pass
        if _names(path, file):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()


def at_work(folder: Path) -> bool:
    """Does a process run in this folder, as far as this machine can tell?"""
    try:
        with (folder / CONFIG / LOCK).open("r+", encoding="utf-8") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _names(path: Path, file: IO[str]) -> bool:
    """Is it this open file that others find there?"""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:  # taken away, perhaps just now
        return False


def ended(folder: Path) -> bool:
    """Does the folder hold a run that has nothing left to do?"""
    return status(folder) in ENDED


def status(folder: Path) -> str | None:
    """What the summary says of how the run ended; None: it still goes on, or was killed."""
    found = read_json(folder / SUMMARY).get("status")
    return None if found is None else str(found)


def goes_on(folder: Path, lengths: Mapping[str, int]) -> bool:
    """Are all these files there, each of so many bytes or more?"""
    paths = {folder / name: length for name, length in lengths.items()}
    return all(path.is_file() and path.stat().st_size >= length for path, length in paths.items())


def clear(folder: Path, *, records: bool) -> None:
    """Take away how an earlier try ended, what was drawn of it, and what it left half-written.

    With `records` all that it recorded, too.
    """
    drafts = [f".{name}.*" for name in (SUMMARY, WEIGHTS, CHECKPOINT)]
    own = [SUMMARY, TRACE, PAGE, *PICTURES, *drafts]
    own += [RECORDS, METRICS, CHECKPOINT, f"{EVENTS}*"] if records else []
    for path in [path for pattern in own for path in folder.glob(pattern)]:
        path.unlink()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file so that a reader finds the old one or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)  # a full disk has no room for half a file
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; {} if it is not there or is not whole."""
    import orjson

    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

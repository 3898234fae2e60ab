"""A run folder is made once, never shared, never overwritten."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlexp import folder
from dlexp.errors import BusyError, UserError
from dlexp.folder import claim, create, locked, write_json

NOW = datetime(2026, 1, 2, 3, 4, 5)

MANY = """
import sys
from datetime import datetime
from dlexp.folder import create
for _ in range(20):
    print(create(sys.argv[1], "mlp", datetime(2026, 1, 2, 3, 4, 5)))
"""


def test_a_folder_is_named_by_run_and_time(tmp_path: Path) -> None:
    """outputs/<name>/<date>_<time>; a name may have parts of its own."""
    assert create(str(tmp_path), "mlp", NOW) == tmp_path / "mlp" / "2026-01-02_03-04-05"
    assert create(str(tmp_path), "a/b", NOW) == tmp_path / "a" / "b" / "2026-01-02_03-04-05"


def test_runs_of_the_same_second_get_numbers(tmp_path: Path) -> None:
    """The second is _2, the third _3."""
    names = [create(str(tmp_path), "mlp", NOW).name for _ in range(3)]
    assert names == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2", "2026-01-02_03-04-05_3"]


def test_many_threads_get_a_folder_each(tmp_path: Path) -> None:
    """Whoever loses the race for a name takes the next one."""
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: create(str(tmp_path), "mlp", NOW), range(100)))
    assert len(set(found)) == 100
    assert all(path.is_dir() for path in found)


def test_many_processes_get_a_folder_each(tmp_path: Path) -> None:
    """The same across processes, which share no lock."""
    command = [sys.executable, "-c", MANY, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(found) == len(set(found)) == 80


@pytest.mark.parametrize("make", [lambda p: create(str(p), "mlp", NOW), lambda p: claim(p / "run")])
def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """One clear line with the key and the value."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"(outputs|hydra\.run\.dir)=.*file.*: .*be made.*Not a directory"):
        make(tmp_path / "file")


def test_a_named_folder_may_be_there_already(tmp_path: Path) -> None:
    """Hydra makes the folders of a sweep before the job starts."""
    assert claim(tmp_path) == tmp_path
    with pytest.raises(UserError, match=r"holds a run already; allowed: a folder without \.hydra"):
        claim(tmp_path)  # a second run that starts before the first has written a line
    assert claim(tmp_path / "new" / "one").is_dir()


@pytest.mark.parametrize("name", ["records.jsonl", "metrics.jsonl", "summary.json"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path, name: str) -> None:
    """It is named together with what was found in it."""
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=f"hydra.run.dir={tmp_path}: holds a run already.*{name}"):
        claim(tmp_path)
    assert (tmp_path / name).read_text() == "precious"


HOLDS = """
import sys, time
from pathlib import Path
from dlexp.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Meanwhile it says who holds it; a kill leaves the file, and nobody minds."""
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(BusyError) as caught, locked(tmp_path):
            pass
        assert str(caught.value) == f"{tmp_path}: is still running (pid {other.pid})"
        other.kill()
    assert (tmp_path / ".hydra" / "lock").read_text() == str(other.pid)
    with locked(tmp_path):
        assert (tmp_path / ".hydra" / "lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".hydra" / "lock").exists()


def test_one_of_many_gets_the_lock(tmp_path: Path) -> None:
    """Never two at a time, however the file comes and goes."""
    inside: list[int] = []
    most = []

    def take(_: int) -> bool:
        try:
            with locked(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(take, range(400)))
    assert max(most) == 1


def test_where_nothing_can_be_written_there_is_no_lock(tmp_path: Path) -> None:
    """One clear line."""
    (tmp_path / ".hydra").write_text("a file")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written to: File exists"), locked(tmp_path):
        pass


@pytest.mark.parametrize("missing", ["module", "support"])
def test_without_locks_there_are_none(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, and on disks that know none, a run goes on without."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    module = SimpleNamespace(flock=unsupported, LOCK_EX=2, LOCK_NB=4) if missing == "support" else None
    monkeypatch.setattr(folder, "fcntl", module)
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / ".hydra").is_dir()


def test_a_summary_is_whole_and_alone(tmp_path: Path) -> None:
    """What was written is read back, and no draft stays."""
    write_json(tmp_path / "summary.json", {"a": [1, None, "é"]})
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == {"a": [1, None, "é"]}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file is never seen under the real name."""
    path = tmp_path / "summary.json"
    write_json(path, {"status": "old"})
    real = Path.write_text

    def breaks_off(self: Path, data: str, encoding: str | None = None) -> int:
        real(self, data[: len(data) // 2], encoding=encoding)
        raise KeyboardInterrupt

    monkeypatch.setattr(folder.Path, "write_text", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"status": "new"})
    assert json.loads(path.read_text()) == {"status": "old"}
    assert [found.name for found in tmp_path.iterdir()] == ["summary.json"]  # no draft stays


def test_a_number_that_json_has_not_is_refused(tmp_path: Path) -> None:
    """The old file stays when the new content cannot be written."""
    path = tmp_path / "summary.json"
    write_json(path, {"status": "old"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"status": "old"}

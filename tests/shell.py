"""`dlexp` as a person types it, in a process of its own that does not have to load PyTorch first.

`run` and `start` fork a server that has imported all that a run may need (multiprocessing's forkserver)
and has done nothing else: pytest's own process has trained, and what comes of its forks can train no more
where there is a GPU or OpenMP was at work. Such a `dlexp` has words, folder, environment, output, exit
code, signal handlers and all that is global to itself, and Python's own filters of warnings, as the
installed command has.

Pictures are blank unless `DRAWN` is in the environment: tests/report looks at them. What is not shown
either is the start. `fresh` is for that, and for what depends on it: that the command and
`python -m dlexp` are there at all (test_cli.py), what they load (test_imports.py), what processes that
start together share, which forks do with random numbers, and the launchers, which find out in their
workers how the process was started (test_launchers.py).
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PATIENCE = 200  # seconds that a process may take on a busy machine
LOADED = [
    *("shell", "dlexp.cli", "dlexp.runner", "dlexp.report.command", "dlexp.report.watch", "torch._dynamo"),
    *("pandas", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("dlexp.report.page", "dlexp.diagnose.order", "jinja2", "orjson", "google_crc32c"),
    *("tensorboard.compat.proto.event_pb2", "tensorboard.plugins.hparams.summary_v2"),
    *("optuna.storages._rdb.storage", "optuna.storages._rdb.models", "alembic.context", "pytest"),
]


NET = """
import os, shutil, signal
from pathlib import Path
from torch import nn
class Net(nn.Sequential):
    def __init__(self, outputs, kind):
        super().__init__(nn.Flatten(), nn.Linear(64, outputs))
        self.kind, self.calls = kind, 0
    def forward(self, x):
        self.calls += 1
        {trouble}
        return super().forward(x)
"""


def clean_environment(**more: str) -> dict[str, str]:
    """As in a fresh shell."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "COLUMNS")}
    return kept | more


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`dlexp` on these words, from start to end."""
    process = start(*words, cwd=cwd, **environment)
    try:
        out, err = process.communicate(PATIENCE)
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess(["dlexp", *words], process.returncode, out, err)


def start(*words: str, cwd: Path, **environment: str) -> Running:
    """The same, while it runs."""
    return Running(_dlexp, ("dlexp", *words), cwd, environment)


def fork(function: Callable[..., object], *arguments: object, cwd: Path) -> Running:
    """A function of a module's in place of the command line."""
    return Running(function, arguments, cwd, {})


def fresh(
    *words: str, cwd: Path, command: Sequence[str] = (sys.executable, "-m", "dlexp")
) -> subprocess.CompletedProcess[str]:
    """`python -m dlexp` from nothing."""
    return subprocess.run(
        [*command, *words],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def only_sweep(cwd: Path) -> Path:
    """The folder of the sweep that such a process has made."""
    (folder,) = (cwd / "outputs" / "sweep").iterdir()
    return folder


def summaries(folder: Path) -> dict[str, Any]:
    """Those of the jobs of a sweep, by their names."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/summary.json"))}


def put_net(folder: Path, trouble: str) -> None:
    """own.py with a network Net of a `kind`, which runs a line of Python in its pass number `self.calls`."""
    (folder / "own.py").write_text(NET.format(trouble=trouble))


class Running:
    """What `subprocess.Popen` has, of a forked process."""

    def __init__(
        self, function: Callable[..., object], arguments: Sequence[object], cwd: Path, more: Mapping[str, str]
    ) -> None:
        self._printed = tempfile.TemporaryDirectory(prefix="dlexp-printed-")
        self._files = [Path(self._printed.name, name) for name in ("out", "err")]
        given = (function, arguments, cwd, clean_environment(**more), self._files)
        self._process = _server().Process(target=_begin, args=given)
        self._process.start()
        atexit.register(self.kill)  # multiprocessing waits for it otherwise, for ever perhaps
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs, negative if a signal has killed it."""
        return self._process.exitcode  # type: ignore[no-any-return]

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed up to its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("dlexp", timeout or 0)
        out, err = (path.read_text() if path.exists() else "" for path in self._files)
        self._printed.cleanup()
        atexit.unregister(self.kill)
        return out, err


@cache
def _server() -> Any:
    """Where processes are forked; started when the first one is asked for."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")  # Windows: no faster than a fresh one
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # before Python 3.13 it is not told
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _begin(
    function: Callable[..., object],
    arguments: Sequence[object],
    cwd: Path,
    environment: Mapping[str, str],
    files: Sequence[Path],
) -> None:
    """In the process that was forked: become what a fresh one is, and begin."""
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(Path(__file__).parent)]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    weakref.finalize._registry.clear()  # type: ignore[attr-defined] # what the server has loaded ends with it
    multiprocessing.set_start_method(None, force=True)  # what a run starts, it starts as anybody does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "DRAWN" not in environment:
        _draw_blank()
    try:
        function(*arguments)
    finally:
        atexit._run_exitfuncs()  # before Python 3.13 these processes leave without


def _dlexp(*words: str) -> None:
    from dlexp.cli import main

    sys.argv = list(words)
    main()


def _draw_blank() -> None:
    """Pictures are made and written, and nothing is drawn on them: that takes longer than small sweeps."""
    from matplotlib.figure import Figure

    draw = Figure.savefig

    def savefig(figure: Figure, *where: Any, **how: Any) -> None:
        draw(Figure(figure.get_size_inches()), *where, **how)

    Figure.savefig = savefig  # type: ignore[method-assign]

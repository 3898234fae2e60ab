"""What does a job cost beyond its own training steps? Many jobs in one process, as a sweep runs them.

    python tests/benchmarks/jobs.py [JOBS] [WORDS ...]        e.g. 30 train.epochs=50

Without words each job makes one step of the default network. The table has the median over jobs of the
milliseconds of processor time in each part, without the parts within it; then comes what would grow
with the number of jobs if something of them stayed: time and memory.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from dlexp import compose, describe, folder, runner
from dlexp.build import assemble
from dlexp.record import sinks, tensorboard
from dlexp.record.look import Look
from dlexp.record.recorder import Recorder
from dlexp.report.terminal import Terminal
from dlexp.train.evaluation import Evaluation

WARM_UP = 3  # jobs that pay for imports and read the data

# part -> the functions that it consists of; what they call of another part counts there
PARTS: dict[str, list[tuple[Any, str]]] = {
    "compose": [(compose.Composer, "__call__"), (compose, "apart")],
    "check": [(runner, "check")],
    "assemble: data": [],  # what `assemble._build` does for the group of that name
    "assemble: model": [(assemble, "_model")],
    "assemble: rehearsal": [(assemble, "_rehearse")],
    "assemble: rest": [(runner, "assemble")],
    "folder, config files": [(folder, "create"), (folder, "claim"), (runner, "_save_config")],
    "events, lines": [
        *(
            (tensorboard.TensorBoard, name)
            for name in ("__init__", "rows", "scalars", "text", "hyperparameters")
        ),
        *((kind, name) for kind in (sinks.RecordLines, sinks.MetricLines) for name in ("__init__", "rows")),
        (sinks.MetricLines, "scalars"),
        (Recorder, "flush"),
    ],
    "loop": [(runner, "fit")],
    "evaluation": [(Evaluation, "scores"), (runner, "errors_by_class")],
    "prediction timed": [(runner, "prediction_seconds")],
    "look": [(Look, "__init__"), (Look, "__call__")],
    "summary": [
        *((describe, name) for name in ("summary", "hyperparameters", "as_markdown", "heading")),
        (runner, "layer_entries"),
        (folder, "write_json"),
    ],
    "terminal": [(Terminal, name) for name in ("__init__", "heading", "ending")],
    "rest of a run": [(runner, "run")],
}


class Meter:
    """Processor time by part, each without the parts within it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._within: list[str] = []
        self._last = 0.0

    def _pass(self) -> None:
        now = time.process_time()
        if self._within:
            self.spent[self._within[-1]] += now - self._last
        self._last = now

    def timed(self, part: Callable[..., str | None], function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted in the part that `part` finds from its arguments, if any."""

        @wraps(function)
        def measured(*args: Any, **more: Any) -> Any:
            name = part(*args)
            if name is None:
                return function(*args, **more)
            self._pass()
            self._within.append(name)
            try:
                return function(*args, **more)
            finally:
                self._pass()
                self._within.pop()

        return measured


def attach(meter: Meter) -> None:
    """Put the meter around the functions of all parts."""
    for part, functions in PARTS.items():
        for home, name in functions:
            setattr(home, name, meter.timed(lambda *_, part=part: part, getattr(home, name)))
    group = meter.timed(lambda _, g, *__: "assemble: data" if g == "data" else None, assemble._build)
    setattr(assemble, "_build", group)  # noqa: B010 - mypy lets no function be replaced


def megabytes() -> float:
    """The memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Print the table and the memory."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    words = sys.argv[2:] or ["train.max_steps=1"]
    torch.set_num_threads(1)
    meter = Meter()
    attach(meter)
    rows: list[dict[str, float]] = []
    memory: dict[int, float] = {}
    configs = str(compose.CONFIGS.resolve())
    with (
        tempfile.TemporaryDirectory() as outputs,
        initialize_config_dir(configs, job_name="dlexp", **compose.VERSION_BASE),
    ):
        loader: Any = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [*words, "seed=0,1"], RunMode.MULTIRUN)
        composer = compose.Composer(loader)
        for job in range(WARM_UP + jobs):
            meter.spent.clear()
            config = composer(master, [*words, f"seed={job}", f"outputs={outputs}"])
            runner.run(compose.apart(config), quiet=True)
            rows.append(dict(meter.spent))
            memory[job + 1] = megabytes()
    rows = rows[WARM_UP:]
    print(f"{jobs} jobs: {' '.join(words)}; medians, ms of processor time")
    for part in PARTS:
        print(f"  {part:<22} {1000 * statistics.median(row.get(part, 0.0) for row in rows):7.2f}")
    without = [sum(x for part, x in row.items() if part != "loop") for row in rows]
    least = f"(least {1000 * min(without):.2f})"
    print(f"  {'all but the loop':<22} {1000 * statistics.median(without):7.2f}  {least}")
    few = max(1, jobs // 10)
    first, last = (1000 * statistics.median(part) for part in (without[:few], without[-few:]))
    print(f"  first tenth of the jobs {first:.2f}, last tenth {last:.2f}")
    shown = [n for n in (10, 30, 100, 300, 1000, WARM_UP + jobs) if n in memory]
    print("  memory after " + ", ".join(f"{n} jobs {memory[n]:.0f} MB" for n in shown))


if __name__ == "__main__":
    main()

"""What does the report over a large sweep cost? Seconds, in a process of its own.

    python tests/benchmarks/report.py [runs]

One real run is made, and its summary copied, with other words and slightly other numbers, into as many
folders as runs: networks of 10 layers, summaries as large as they come. Then `dlexp report` is what is
measured: tables, CSV files and pictures, with the start of Python and all imports.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dlexp

REPORT = "import sys; from dlexp.report.command import command; command(sys.argv[1:])"
LOADED = "import sys, dlexp; sweep = dlexp.load_sweep(sys.argv[1]); sweep.runs, sweep.arms"
DEPTHS, SEEDS = (2, 5, 10, 20), 10


def sweep(folder: Path, runs: int) -> None:
    """As many jobs: activation x depth x learning rate x seed."""
    words = ["model.depth=9", "train.max_steps=20", "device=cpu", f"outputs={folder / 'one'}"]
    summary = dlexp.run(words, quiet=True).summary
    activations = ("sigmoid", "tanh", "relu", "elu", "gelu")
    rates = [10 ** (-k / 2) for k in range(-(-runs // (len(activations) * len(DEPTHS) * SEEDS)))]
    numbers = random.Random(0)
    grid = itertools.product(activations, DEPTHS, rates, range(SEEDS))
    for activation, depth, rate, seed in itertools.islice(grid, runs):
        own = [f"activation={activation}", f"model.depth={depth}", f"optimizer.lr={rate:g}", f"seed={seed}"]
        summary |= {"overrides": own, "seed": seed, "status": "finished"}
        summary["metrics"] = {tag: numbers.random() for tag in summary["metrics"]}
        for layer in summary["layers"]:
            layer["last"]["delta_rms"] = 10 ** -numbers.uniform(1, 9)
        job = folder / "sweep" / ",".join(own)
        job.mkdir(parents=True)
        (job / "summary.json").write_text(json.dumps(summary, indent=2))
    content = {"words": own, "swept": [word.partition("=")[0] for word in own], "jobs": runs}
    (folder / "sweep" / "sweep.json").write_text(json.dumps(content))


def main() -> None:
    """Print what was measured."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        sweep(Path(name), runs)
        size = sum(path.stat().st_size for path in Path(name).glob("sweep/*/summary.json"))
        print(f"{runs} runs, {size / runs / 1000:.0f} kB each")
        for what, code in (("tables in memory", LOADED), ("dlexp report", REPORT)):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", code, f"{name}/sweep"], check=True, stdout=subprocess.DEVNULL
            )
            print(f"{what:<18}{time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()

"""What does watching cost? Ratios against a bare loop in the same process.

    python tests/benchmarks/recording.py

The bare loop is written by hand: the same model, batches and optimizer, no recording, no checks.
Against it stand dlexp's own loop with recording off, with the default schedule, and with every
quantity of every layer at every step, to disk and TensorBoard included. The arms take turns in
short blocks, so that a busy machine slows all of them alike; the median over the blocks counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dlexp.build.mlp import mlp
from dlexp.data import digits
from dlexp.data.batches import batches
from dlexp.data.dataset import Dataset, Split
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines, TensorBoard
from dlexp.train.loop import fit


def bare(model: nn.Module, data: Split, size: int, steps: int) -> None:
    """The loop as anybody would write it."""
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    step = 0
    while True:
        order = torch.randperm(len(data), generator=generator)
        for rows in order[: len(data) // size * size].view(-1, size):
            loss = loss_function(model(data.inputs[rows]), data.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == steps:
                return


def recorded(every: int | str) -> Callable[[nn.Module, Split, int, int], None]:
    """dlexp's loop with a schedule, and all its files."""

    def train(model: nn.Module, data: Split, size: int, steps: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with tempfile.TemporaryDirectory() as name:
            folder, sinks = Path(name), []
            recorder = Recorder(model, schedule(every, steps), sinks)
            names = [layer.name for layer in recorder.layers]
            sinks += [
                RecordLines(folder / "records.jsonl", names, QUANTITIES),
                MetricLines(folder / "metrics.jsonl"),
                TensorBoard(folder, names, QUANTITIES),
            ]
            start = time.perf_counter()
            fit(
                model,
                nn.CrossEntropyLoss(),
                optimizer,
                batches(data, size, 0),
                range(steps),
                recorder=recorder,
            )
            recorder.close()
            train.seconds = time.perf_counter() - start  # type: ignore[attr-defined]
            for sink in sinks:
                sink.close()

    return train


ARMS = {"off": recorded("never"), "auto": recorded("auto"), "every step": recorded(1)}


SMALL = {"off": 1.02, "auto": 1.05, "every step": 1.6}
LARGE = {"off": 1.02, "auto": 1.05, "every step": 1.2}


def compare(
    title: str,
    data: Split,
    size: int,
    shape: tuple[int, int],
    aims: dict[str, float],
    steps: int,
    blocks: int,
) -> None:
    """Print the ratios for one network beside what they should be at most."""
    depth, width = shape

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return mlp(data.inputs.shape[1:], 10, depth=depth, width=width, bias=True, activation=nn.ReLU)

    seconds: dict[str, list[float]] = {name: [] for name in ("bare", *ARMS)}
    bare(fresh(), data, size, 20)
    for _ in range(blocks):
        model = fresh()
        start = time.perf_counter()
        bare(model, data, size, steps)
        seconds["bare"].append(time.perf_counter() - start)
        for name, arm in ARMS.items():
            arm(fresh(), data, size, steps)
            seconds[name].append(arm.seconds)  # type: ignore[attr-defined]
    base = statistics.median(seconds["bare"])
    print(f"{title}: bare loop {base / steps * 1e6:.0f} us per step, {steps} steps, {blocks} blocks")
    for name in ARMS:
        pairs = [x / b for x, b in zip(seconds[name], seconds["bare"], strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4)
        spread = f"half of the blocks {low:.2f} to {high:.2f}"
        print(f"  {name:<10}  {middle:5.2f}   aim {aims[name]:.2f}   ({spread})")


def main() -> None:
    """Both networks of the README."""
    torch.set_num_threads(1)
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    small: Dataset = digits.load(validation=0.15, test=0.15, split_seed=0, standardize="channel")
    compare("10 x 64 on digits, batch 64", small.train, 64, (10, 64), SMALL, 950, blocks)
    generator = torch.Generator().manual_seed(0)
    pictures = Split(
        torch.randn(5000, 784, generator=generator), torch.randint(10, (5000,), generator=generator)
    )
    compare("784-512-512-512-10, batch 128", pictures, 128, (3, 512), LARGE, 800, blocks)


if __name__ == "__main__":
    main()

"""What does watching cost? Ratios against a bare loop in the same process.

    python tests/benchmarks/recording.py

The bare loop is written by hand: the same model, batches and optimizer, no recording, no checks.
Against it stand a naive way of recording, and dlexp's own loop with recording off, with the default
schedule, and with every quantity of every layer at every step, to disk and TensorBoard included. The
arms take turns in short blocks, so that a busy machine slows all of them alike; the median counts.
"""

from __future__ import annotations

import json
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
from dlexp.data.batches import Batches
from dlexp.data.dataset import Dataset, Split
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines
from dlexp.record.tensorboard import TensorBoard
from dlexp.startup import keep_what_is_freed
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


def naive(model: nn.Module, data: Split, size: int, steps: int) -> None:
    """What one would write first: hooks that stay on, a call for each number, all of them to the host."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    bends = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    z: dict[nn.Module, torch.Tensor] = {}
    a: dict[nn.Module, torch.Tensor] = {}

    def keep_z(module: nn.Module, _: object, returned: torch.Tensor) -> None:
        returned.retain_grad()
        z[module] = returned

    for layer in layers:
        layer.register_forward_hook(keep_z)
    for bend in bends:
        bend.register_forward_hook(lambda module, _, returned: a.update({module: returned}))
    behind = dict(zip(layers, bends, strict=False))
    loss_function, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)
    stream = Batches(data, size, 0)
    with tempfile.TemporaryFile("w") as file:
        for step in range(steps):
            inputs, targets = next(stream)
            loss = loss_function(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            with torch.no_grad():
                before = [[p.clone() for p in layer.parameters()] for layer in layers]
                numbers = [x for layer in layers for x in _naive_numbers(layer, z, a.get(behind.get(layer)))]
            optimizer.step()
            with torch.no_grad():
                for layer, old in zip(layers, before, strict=True):
                    moved = [(p - q).norm() for p, q in zip(layer.parameters(), old, strict=True)]
                    numbers.append(torch.stack(moved).norm())
            json.dump({"step": step, "loss": loss.item(), "numbers": torch.stack(numbers).tolist()}, file)


def _naive_numbers(
    layer: nn.Module, z: dict[nn.Module, torch.Tensor], a: torch.Tensor | None
) -> list[torch.Tensor]:
    grads = [p.grad for p in layer.parameters()]
    signal = z[layer] if a is None else a
    return [
        torch.stack([g.norm() for g in grads]).norm(),
        z[layer].grad.square().mean().sqrt(),
        signal.square().mean().sqrt(),
        torch.stack([p.norm() for p in layer.parameters()]).norm(),
        (signal == 0).all(dim=0).float().mean(),
        torch.stack([(g == 0).float().mean() for g in grads]).mean(),
    ]


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
                Batches(data, size, 0),
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
    start = time.perf_counter()
    bare(fresh(), data, size, steps)
    middle = time.perf_counter()
    naive(fresh(), data, size, steps)
    once = (time.perf_counter() - middle) / (middle - start)
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
    print(f"  naive       {once:5.2f}   the same quantities at every step, but one, without TensorBoard")


def main() -> None:
    """Both networks of the README."""
    torch.set_num_threads(1)
    keep_what_is_freed()  # as the command does; the bare loop has it, too
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

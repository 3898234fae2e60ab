"""How many threads does a network want? Time per step with one thread and with all cores.

    python tests/benchmarks/threads.py

Idle, and beside another process that keeps every core busy, as on a shared machine. The rule of
`threads=auto` (dlexp.train.device.WORTH_A_THREAD) is read off this table.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time

import torch
from torch import nn

from dlexp.build.mlp import mlp
from dlexp.train.device import WORTH_A_THREAD

SIZES = [(3, 64, 64), (10, 64, 64), (3, 128, 64), (3, 256, 64), (3, 256, 256), (3, 512, 128), (3, 1024, 128)]


def step_time(depth: int, width: int, batch: int, threads: int) -> tuple[float, float]:
    """Median seconds per step, and its floating-point operations."""
    torch.set_num_threads(threads)
    model = mlp((width,), 10, depth=depth, width=width, bias=True, activation=nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(batch, width), torch.randint(10, (batch,))
    times = []
    for _ in range(60):
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[10:]), 6.0 * batch * sum(p.numel() for p in model.parameters())


def busy() -> None:
    """Work for ever."""
    while True:
        pass


def table(title: str, cores: int) -> None:
    """Print a line for each size."""
    print(f"{title}: operations per step, one thread, {cores} threads, ratio, threads=auto takes")
    for depth, width, batch in SIZES:
        one, operations = step_time(depth, width, batch, 1)
        many, _ = step_time(depth, width, batch, cores)
        auto = 1 if operations < WORTH_A_THREAD else cores
        print(
            f"  {depth} x {width:<5} batch {batch:<4} {operations / 1e6:7.0f} M"
            f"  {one * 1e6:8.0f} us  {many * 1e6:8.0f} us  {many / one:6.2f}   {auto}"
        )


def main() -> None:
    """Idle, then busy."""
    cores = os.cpu_count() or 1
    table("idle", cores)
    others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(cores)]
    for other in others:
        other.start()
    table("every core busy with something else", cores)


if __name__ == "__main__":
    main()

"""Does memory grow with the number of steps? Resident memory while every step is recorded.

python tests/benchmarks/memory.py
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import torch
from torch import nn

from dlexp.build.mlp import mlp
from dlexp.data import digits
from dlexp.data.batches import batches
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import MetricLines, RecordLines
from dlexp.record.tensorboard import TensorBoard
from dlexp.train.loop import fit

STEPS = 8000


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Print resident memory at eight moments of a run that records everything at every step."""
    torch.set_num_threads(1)
    data = digits.load(validation=0.15, test=0.15, split_seed=0, standardize="channel").train
    model = mlp((1, 8, 8), 10, depth=10, width=64, bias=True, activation=nn.ReLU)
    with tempfile.TemporaryDirectory() as name:
        folder, sinks = Path(name), []
        recorder = Recorder(model, schedule(1, STEPS), sinks)
        layers = [layer.name for layer in recorder.layers]
        sinks += [
            RecordLines(folder / "records.jsonl", layers, QUANTITIES),
            MetricLines(folder / "metrics.jsonl"),
            TensorBoard(folder, layers, QUANTITIES),
        ]

        def steps():  # type: ignore[no-untyped-def]
            for step in range(STEPS):
                if step % (STEPS // 8) == 0:
                    print(f"step {step:>5}  {resident():7.1f} MiB")
                yield step

        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        fit(model, nn.CrossEntropyLoss(), optimizer, batches(data, 64, 0), steps(), recorder=recorder)
        recorder.close()
    print(f"step {STEPS:>5}  {resident():7.1f} MiB")


if __name__ == "__main__":
    main()

"""Where a run went wrong, told from its last row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.sinks import Row
from dlexp.record.summary import place_of_trouble
from dlexp.train.loop import fit

NAN, INF = math.nan, math.inf
A = "activation_rms"


def row(bad: dict[tuple[str, int], float], gaps: tuple[tuple[str, int], ...] = ()) -> Row:
    """Five layers, all well but for some numbers."""
    table = np.ones((len(QUANTITIES), 5))
    for (quantity, layer), x in bad.items():
        table[INDEX[quantity], layer] = x
    reasons = {(INDEX[quantity], layer): "no gradient" for quantity, layer in gaps}
    return Row(7, {"loss": NAN}, table, reasons)


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({}, None),
        # forward comes first, and there the first layer
        ({("activation_rms", 2): INF, (A, 3): NAN, ("delta_rms", 0): NAN}, (2, A)),
        ({("weight_norm", 3): NAN, (A, 3): NAN, (A, 4): NAN}, (3, "weight_norm")),
        # forward is clean: backward goes from the last layer to the first
        ({("delta_rms", 0): NAN, ("delta_rms", 1): INF, ("grad_norm", 0): NAN}, (1, "delta_rms")),
        ({("grad_norm", 4): INF, ("delta_rms", 3): NAN}, (4, "grad_norm")),
    ],
)  # fmt: skip
def test_the_place_of_trouble(bad: dict[tuple[str, int], float], place: tuple[int, str] | None) -> None:
    """By hand."""
    assert place_of_trouble(row(bad)) == place


def test_what_is_absent_is_no_trouble() -> None:
    """A frozen layer has no gradient, which is a gap with a reason."""
    gap = ("grad_norm", 4)
    assert place_of_trouble(row({gap: NAN, ("delta_rms", 1): NAN}, (gap,))) == (1, "delta_rms")


class Explodes(nn.Module):
    """Multiplies by 1e30."""

    is_activation = True

    def forward(self, z: Tensor) -> Tensor:
        return z * 1e30


class HeadFirst(nn.Module):
    """Its head is defined before its body, which runs first."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(8, outputs)
        self.second = nn.Linear(8, 8)
        self.first = nn.Linear(64, 8)
        self.bend = Explodes()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.bend(self.second(self.bend(self.first(x.flatten(1))))))
        return found


def test_layers_are_numbered_as_they_run(tmp_path: object) -> None:
    """Not as they are defined; and the first bad one is the one where the signal is lost: 1e30 ** 2."""
    words = [f"model._target_={__name__}.HeadFirst", f"outputs={tmp_path}", "train.max_steps=3"]
    run = dlexp.run(words, quiet=True)
    assert [layer["path"] for layer in run.summary["layers"]] == ["first", "second", "head"]
    assert [layer["name"] for layer in run.summary["layers"]] == ["01_linear", "02_linear", "03_linear"]
    assert run.summary["status"] == "diverged"
    assert run.summary["diverged"] == {
        "step": 0,
        "layer": "02_linear",
        "reason": "its activation_rms is not finite",
    }


class Memory:
    """A sink that keeps its rows."""

    def __init__(self) -> None:
        self.kept: list[Row] = []

    def rows(self, rows: list[Row]) -> None:
        self.kept += rows

    def scalars(self, step: int, numbers: object) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("bad", [0, 3, 4])
def test_the_second_look_sees_what_the_first_one_did(bad: int) -> None:
    """Dropout masks of the bad step are drawn as before: its row is the same, due or not."""
    rows = []
    for due in (lambda _: True, lambda _: False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))
        batches = [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(6)]
        memory = Memory()
        recorder = Recorder(model, due, [memory])
        calls = iter(range(99))

        def loss(outputs: Tensor, targets: Tensor, calls=calls) -> Tensor:  # type: ignore[no-untyped-def]
            found = nn.functional.cross_entropy(outputs, targets)
            return found * math.nan if next(calls) == bad else found

        ending = fit(
            model,
            loss,
            torch.optim.SGD(model.parameters(), lr=0.1),
            iter(batches),
            range(6),
            recorder=recorder,
        )
        recorder.close()
        assert ending == ("diverged", bad)
        rows.append(memory.kept[-1])
    assert rows[0].step == rows[1].step == bad
    for name in ("activation_rms", "weight_norm"):
        assert np.array_equal(rows[0].table[INDEX[name]], rows[1].table[INDEX[name]]), name

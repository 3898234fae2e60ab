"""Layers that run several times in a step: what is a time step, what is another run, what is not known.

B batch, T time steps, F features, H units.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from record.second_opinion import column, recorded, sgd
from rich.console import Console
from torch import Tensor, nn

import dlexp
from dlexp.record.layers import FUSED
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import RecordLines, Row
from dlexp.record.summary import layer_entries
from dlexp.report.terminal import Terminal
from dlexp.train.loop import fit
from dlexp.train.step import Batch

B, T, F, H = 16, 6, 3, 5
KINDS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(B, T, F, dtype=torch.float64, generator=generator),
        torch.randint(2, (B,), generator=generator),
    )


class Fused(nn.Module):
    """PyTorch's fused recurrent module, of which the last output is used, or all are."""

    def __init__(self, kind: str = "lstm", *, every: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        self.recurrent = KINDS[kind](F, H, batch_first=batch_first)
        self.readout = nn.Linear(H, 2)
        self.every, self.batch_first = every, batch_first

    def forward(self, x: Tensor) -> Tensor:
        states = self.recurrent(x if self.batch_first else x.transpose(0, 1))[0]
        states = states if self.batch_first else states.transpose(0, 1)
        answer: Tensor = self.readout(states.mean(dim=1) if self.every else states[:, -1])
        return answer


class OwnCell(nn.Module):
    """A recurrent cell of somebody's own: h = tanh(x W + h U), and with `state` a c beside it."""

    is_cell = True

    def __init__(self, *, state: bool = False) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(F, H) / 2)
        self.u = nn.Parameter(torch.randn(H, H) / 4)
        self.state = state

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        new = torch.tanh(x @ self.w + h @ self.u)
        c = c * 0.5 + new
        return (new * torch.sigmoid(c), c) if self.state else new


class Unrolled(nn.Module):
    """Runs a cell over time, or two Linear layers in its place."""

    def __init__(self, cell: nn.Module | None) -> None:
        super().__init__()
        self.cell = cell
        self.from_x, self.from_h = nn.Linear(F, H), nn.Linear(H, H)
        self.readout = nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), H)
        for t in range(x.shape[1]):
            if self.cell is None:
                found = torch.tanh(self.from_x(x[:, t]) + self.from_h(h))
            else:
                found = self.cell(x[:, t], h, c)
            h, c = found if isinstance(found, tuple) else (found, c)
        answer: Tensor = self.readout(h)
        return answer


def told(model: nn.Module, width: int = 200, data: Batch | None = None) -> tuple[Row, dict[str, Any], str]:
    """The row of one step, the layers of the summary by name, and what the terminal says of runs."""
    recorder = Recorder(model, schedule(1, 1), [])
    fit(
        model,
        nn.functional.cross_entropy,
        sgd()(model.parameters()),
        iter([data or batch()]),
        range(1),
        recorder=recorder,
    )
    recorder.close()
    assert recorder.last is not None
    summary = layer_entries(recorder) | {"status": "finished", "metrics": {}, "diverged": None, "steps": 1}
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    terminal.ending(summary, "x", "x")
    lines = terminal.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    about = "\n".join(line for line in lines if "over time" in line or "in its" in line)
    return recorder.last, {layer["name"]: layer for layer in summary["layers"]}, about


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_fused_module_has_activations_over_time_and_no_error(
    kind: str, every: bool, batch_first: bool
) -> None:
    """What reaches its outputs is not dL/dh_t: no number, of the layer neither, and the reason."""
    torch.manual_seed(0)
    model = Fused(kind, every=every, batch_first=batch_first).double()
    x = batch()[0]
    states = model.recurrent(x if batch_first else x.transpose(0, 1))[0]
    row, layers, about = told(model)
    assert list(row.over_time) == [("activation_rms", 0)]
    sizes = states.square().mean(dim=(0, 2) if batch_first else (1, 2)).sqrt().detach().numpy()
    np.testing.assert_allclose(row.over_time["activation_rms", 0], sizes, rtol=1e-9)
    entry = layers[f"01_{kind}"]
    assert entry["last"]["delta_rms"] is None
    assert entry["reasons"]["last"]["delta_rms"] == FUSED
    assert entry["last"]["grad_norm"] > 0 and entry["last"]["activation_rms"] > 0
    assert about == f"01_{kind}  delta_rms over time  –  {FUSED}"


def test_a_cell_of_ones_own_runs_over_time() -> None:
    """`is_cell = True` names its runs; the numbers are those of any layer that runs several times."""
    torch.manual_seed(0)
    row, layers, about = told(Unrolled(OwnCell()).double())
    assert layers["01_owncell"]["is_cell"] and not layers["02_linear"]["is_cell"]
    assert row.over_time["delta_rms", 0].shape == (T,)
    assert about.splitlines()[0].startswith("01_owncell  delta_rms over time  ")
    assert f"t=0 {row.over_time['delta_rms', 0][0]:.3g}"[:6] in about and f", t={T - 1} " in about


@pytest.mark.parametrize("width", [80, 110, 200])
def test_the_strips_fit_on_the_terminal(width: int) -> None:
    """100 time steps are thinned to what there is room for, 48 at most."""
    torch.manual_seed(0)
    model = Unrolled(OwnCell(state=True)).double()
    x, y = batch()
    *_, about = told(model, width, (x.repeat(1, 17, 1)[:, :100], y))
    strips = about.splitlines()
    assert len(strips) == 2 and max(map(len, strips)) <= width
    columns = [sum(letter in "▁▂▃▄▅▆▇█" for letter in strip) for strip in strips]
    assert columns == [48, 48] if width > 120 else 8 <= columns[0] == columns[1] < 48


def test_layers_that_are_no_cells_have_runs() -> None:
    """Unrolled or not, who can tell? So their runs are called runs."""
    torch.manual_seed(0)
    row, layers, about = told(Unrolled(None).double())
    assert not any(layer["is_cell"] for layer in layers.values())
    first, second = about.splitlines()
    assert first.startswith(f"01_linear  delta_rms in its {T} runs  ")
    assert second.startswith(f"02_linear  delta_rms in its {T} runs  ") and ", last " in second
    assert {i for _, i in row.over_time} == {0, 1}


def test_the_cell_state_of_ones_own_cell_is_seen() -> None:
    """A cell that returns (h, c): dL/dc_t by autograd in float64."""
    torch.manual_seed(0)
    model = Unrolled(OwnCell(state=True)).double()
    x, y = batch()
    h = c = x.new_zeros(B, H)
    kept = []
    assert model.cell is not None
    for t in range(T):
        h, c = model.cell(x[:, t], h, c)
        c.retain_grad()
        kept.append(c)
    nn.functional.cross_entropy(model.readout(h), y).backward()
    wanted = [c.grad.square().mean().sqrt().item() for c in kept if c.grad is not None]
    assert len(wanted) == T
    row, _, about = told(model)
    np.testing.assert_allclose(row.over_time["cell_delta_rms", 0], wanted, rtol=1e-9)
    first, second = about.splitlines()
    assert first.startswith("01_owncell  delta_rms over time       ")  # the strips stand below each other
    assert second.startswith("01_owncell  cell_delta_rms over time  ")


def test_a_state_that_one_kernel_makes_with_h_is_left_out() -> None:
    """As on CUDA: what comes to c by way of h is inside the kernel, so its gradient there is not all."""

    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            return x + c, c * 0.5 + x

        @staticmethod
        def backward(_: Any, dh: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return dh + dc, dh + dc * 0.5

    class Cell(OwnCell):
        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
            return Kernel.apply(torch.tanh(x @ self.w + h @ self.u), c)

    torch.manual_seed(0)
    row, *_ = told(Unrolled(Cell()).double())
    assert set(row.over_time) == {("activation_rms", 0), ("delta_rms", 0)}


def test_runs_in_pandas(tmp_path: Path) -> None:
    """A row per run; a quantity that a layer has none of is NaN, whichever comes first in the file."""
    lines = RecordLines(tmp_path / "records.jsonl", ["01_lstm", "02_lstmcell"], ["delta_rms"])
    series = {
        ("activation_rms", 0): np.array([1.0, 2.0]),
        ("delta_rms", 1): np.array([3.0, 4.0, 5.0]),
        ("cell_delta_rms", 1): np.array([6.0, math.inf, 8.0]),
    }
    lines.rows([Row(7, {"loss": 1.0}, np.ones((1, 2)), {}, {}, series)])
    lines.close()
    table = dlexp.load(tmp_path).over_time
    columns = ["step", "layer", "time", "activation_rms", "delta_rms", "cell_delta_rms"]
    assert list(table.columns) == columns
    assert list(table["layer"]) == ["01_lstm"] * 2 + ["02_lstmcell"] * 3
    assert list(table["time"]) == [0, 1, 0, 1, 2]
    assert list(table["delta_rms"][2:]) == [3, 4, 5] and table["delta_rms"][:2].isna().all()
    assert table["cell_delta_rms"].isna().tolist() == [True, True, False, True, False]
    assert set(table.dtypes[3:].astype(str)) == {"float64"}


def test_several_runs_of_a_fused_module() -> None:
    """A loop over single time steps is none that its outputs could tell of either."""

    class Steps(Fused):
        def forward(self, x: Tensor) -> Tensor:
            state = None
            for t in range(x.shape[1]):
                out, state = self.recurrent(x[:, t : t + 1], state)
            answer: Tensor = self.readout(out[:, 0])
            return answer

    torch.manual_seed(0)
    (row,) = recorded(Steps().double(), [batch()], sgd())
    assert column(row, "delta_rms")[0] is None
    assert row.over_time["activation_rms", 0].shape == (T,)
    assert ("delta_rms", 0) not in row.over_time

"""Unrolled cells are PyTorch's own recurrent nets, and what passes through them in time is on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.recurrent import Recurrent
from dlexp.compose import compose
from dlexp.errors import UserError
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.train.loop import fit

B, T, F, H, K = 4, 8, 3, 5, 2
PEERS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def network(cell: str, **values: Any) -> Recurrent:
    """A small one in float64, its weights from PyTorch's generator."""
    torch.manual_seed(0)
    wanted = {"layers": 2, "width": H, "embedding": None, "every_step": False} | values
    return Recurrent(F, K, cell=cell, **wanted).double()


def peer(model: Recurrent, cell: str, **options: Any) -> nn.RNNBase:
    """PyTorch's recurrent net with the weights of `model`."""
    other: nn.RNNBase = PEERS[cell](F, H, len(model.cells), batch_first=True, **options).double()
    for i, own in enumerate(model.cells):
        for name, p in own.named_parameters():
            getattr(other, f"{name}_l{i}").data.copy_(p.data)
    return other


def sequences() -> Tensor:
    return torch.randn(B, T, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def built(*words: str) -> Recurrent:
    """The network that these words name."""
    torch.manual_seed(0)
    model = assemble(compose(list(words)), torch.device("cpu")).model
    assert isinstance(model, Recurrent)
    return model


@pytest.mark.parametrize(
    ("cell", "options"),
    [("rnn", {"nonlinearity": "tanh"}), ("rnn", {"nonlinearity": "relu"}), ("lstm", {}), ("gru", {})],
)
@pytest.mark.parametrize("every_step", [True, False])
def test_outputs_and_gradients_are_those_of_pytorch(
    cell: str, options: dict[str, str], every_step: bool
) -> None:
    """Two layers, random weights and biases, in float64."""
    model = network(cell, every_step=every_step, **options)
    other = peer(model, cell, **options)
    states, _ = other(sequences())
    right = model.readout(states if every_step else states[:, -1])
    outputs = model(sequences())
    assert outputs.shape == ((B, T, K) if every_step else (B, K))
    torch.testing.assert_close(outputs, right)
    right.square().sum().backward()
    model.readout.zero_grad()
    outputs.square().sum().backward()
    for i, own in enumerate(model.cells):
        for name, p in own.named_parameters():
            torch.testing.assert_close(p.grad, getattr(other, f"{name}_l{i}").grad)


@pytest.mark.parametrize("cell", PEERS)
def test_truncated_gradients_are_those_of_the_last_stretch(cell: str) -> None:
    """Eight time steps in stretches of three: the last one is steps 6 and 7, what was before is given."""
    model = network(cell, layers=1, truncate=3)
    x, other = sequences(), peer(model, cell)
    with torch.no_grad():
        _, before = other(x[:, :6])
    states, _ = other(x[:, 6:], before)
    right = model.readout(states[:, -1])
    torch.testing.assert_close(model(x), right)
    right.square().sum().backward()
    model(x).square().sum().backward()
    for name, p in model.cells[0].named_parameters():
        torch.testing.assert_close(p.grad, getattr(other, f"{name}_l0").grad)


def test_truncation_leaves_the_gradients_within_each_stretch() -> None:
    """With an answer at every step the gradient is the sum over stretches, each from a given state."""
    model = network("gru", layers=1, every_step=True, truncate=4)
    x, other, state = sequences(), peer(model, "gru"), None
    for stretch in x.split(4, dim=1):
        states, state = other(stretch, state if state is None else state.detach())
        model.readout(states).square().sum().backward()
    model(x).square().sum().backward()
    for name, p in model.cells[0].named_parameters():
        torch.testing.assert_close(p.grad, getattr(other, f"{name}_l0").grad)


def test_the_gate_bias_of_an_lstm_is_that_of_its_forget_gate() -> None:
    """All else 0: i = o = 1/2 and g = 0, so c_t = sigmoid(b) c_(t-1) and h_t = tanh(c_t) / 2."""
    words = ["data=sequential_digits", "initializer=zeros", "model.gate_bias=1.5"]
    (cell,) = built("model=lstm", *words).cells
    h, c = cell(torch.ones(1, 8), (torch.full((1, 64), 0.7), torch.ones(1, 64)))
    kept = torch.full((1, 64), 1.5).sigmoid()
    torch.testing.assert_close(c, kept)
    torch.testing.assert_close(h, kept.tanh() / 2)


def test_the_gate_bias_of_a_gru_is_that_of_its_update_gate() -> None:
    """All else 0: n = 0, so h_t = (1 - z) n + z h_(t-1) = sigmoid(b) h_(t-1)."""
    words = ["data=sequential_digits", "initializer=zeros", "model.gate_bias=1.5"]
    (cell,) = built("model=gru", *words).cells
    h = cell(torch.ones(1, 8), torch.full((1, 64), 0.7))
    torch.testing.assert_close(h, 0.7 * torch.full((1, 64), 1.5).sigmoid())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_gate_bias_counts_once_and_leaves_the_other_gates(cell: str) -> None:
    """PyTorch adds two biases: over random ones the gate's sum is the value, others stay random."""
    (own,) = built(f"model={cell}", "data=sequential_digits", "model.gate_bias=2").cells
    gates = (own.bias_ih + own.bias_hh).detach().split(64)
    torch.testing.assert_close(gates[1], torch.full((64,), 2.0))
    assert all(gate.std() > 0.01 for i, gate in enumerate(gates) if i != 1)


@pytest.mark.parametrize("cell", PEERS)
@pytest.mark.parametrize("kind", ["orthogonal", "identity", "default"])
def test_recurrent_matrices_start_as_asked(cell: str, kind: str) -> None:
    """Each gate's block by itself, in every layer."""
    words = ["data=sequential_digits", "model.layers=2", f"model.recurrent={kind}"]
    blocks = [block for own in built(f"model={cell}", *words).cells for block in own.weight_hh.split(64)]
    assert len(blocks) == 2 * {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    for block in blocks:
        orthogonal = torch.allclose(block @ block.T, torch.eye(64), atol=1e-5)
        assert orthogonal == (kind != "default")
        assert torch.equal(block, torch.eye(64)) == (kind == "identity")


@pytest.mark.parametrize("cell", PEERS)
def test_the_record_over_time_is_autograd_s(cell: str) -> None:
    """delta_rms of a cell at time t is the root mean square of dL/dh_t, all that comes back included."""
    model, x = network(cell, layers=1), sequences()
    targets = torch.tensor([0, 1, 1, 0])
    state: Any = None
    kept = []
    for t in range(T):
        state = model.cells[0](x[:, t], state)
        kept.append(state[0] if cell == "lstm" else state)
        kept[-1].retain_grad()
    functional.cross_entropy(model.readout(kept[-1]), targets).backward()
    wanted = [h.grad.square().mean().sqrt().item() for h in kept if h.grad is not None]
    assert len(wanted) == T

    recorder = Recorder(model, schedule(1, 1), [])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, functional.cross_entropy, optimizer, iter([(x, targets)]), range(1), recorder=recorder)
    recorder.close()
    assert recorder.last is not None
    np.testing.assert_allclose(recorder.last.over_time["delta_rms", 0], wanted, rtol=1e-9)
    sizes = [h.detach().square().mean().sqrt().item() for h in kept]
    np.testing.assert_allclose(recorder.last.over_time["activation_rms", 0], sizes, rtol=1e-9)


def test_a_run_shows_the_signal_fade_through_time(tmp_path: Path) -> None:
    """The default matrix of a plain rnn has a spectral radius near 1 / sqrt(3), so dL/dh_t shrinks."""
    words = ["model=rnn", "data=sequential_digits", "model.width=16", "train.max_steps=1"]
    run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    (cell, linear) = run.summary["layers"]
    series = cell["over_time"]["first"]["delta_rms"]
    assert len(series) == 8
    assert 0 < series[0] < series[-1] / 10
    assert linear["over_time"]["first"] == {}


def test_tokens_are_embedded_and_answered_at_every_step(tmp_path: Path) -> None:
    """A character model: one number for each token of the vocabulary, at each time step."""
    words = ["model=char_lm", "data=text", "data.characters=3000", "data.length=10", "model.width=8"]
    for cell in PEERS:
        model = built(*words, f"model.cell={cell}")
        assert model.embedding is not None
        tokens = torch.zeros(4, 10, dtype=torch.int64)
        assert model(tokens).shape == (4, 10, model.embedding.num_embeddings)
    run = dlexp.run([*words, "train.max_steps=2", f"outputs={tmp_path}"], quiet=True)
    assert run.summary["status"] == "finished"
    assert [layer["kind"] for layer in run.summary["layers"]] == ["Embedding", "GRUCell", "Linear"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["model=rnn", "data=digits"],
            (
                r"model=rnn: takes sequences \(T, F\) or tokens \(T,\); the data has \(1, 8, 8\);"
                r" allowed: data=sequential_digits, text \.\.\."
            ),
        ),
        (
            ["model=char_lm", "data=sequential_digits"],
            (
                r"model=char_lm: takes tokens \(T,\) and task=language_modelling; the data has \(8, 8\) and"
                r" asks for classification; allowed: data=text"
            ),
        ),
        (
            ["model=rnn", "data=sequential_digits", "+model.gate_bias=1"],
            r"model\.gate_bias=1: a plain rnn has no gates; allowed: null",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}$"):
        built(*words)

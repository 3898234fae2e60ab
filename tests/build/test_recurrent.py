"""Unrolled cells are PyTorch's own recurrent nets, and what passes through them in time is on record."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.recurrent import Recurrent, unroll
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
    """delta_rms of a cell at time t is the root mean square of dL/dh_t, all that comes back included.

    So it is of both cells of a stack; of an LSTM cell_delta_rms is that of dL/dc_t.
    """
    model, x = network(cell, layers=2), sequences()
    targets = torch.tensor([0, 1, 1, 0])
    kept: dict[tuple[str, int], list[Tensor]] = {}
    signal = list(x.unbind(1))
    for i, own in enumerate(model.cells):
        state: Any = None
        for t in range(T):
            state = own(signal[t], state)
            for name, s in zip(("h", "c"), state if cell == "lstm" else [state], strict=False):
                s.retain_grad()
                kept.setdefault((name, i), []).append(s)
        signal = kept["h", i]
    functional.cross_entropy(model.readout(signal[-1]), targets).backward()

    recorder = Recorder(model, schedule(1, 1), [])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, functional.cross_entropy, optimizer, iter([(x, targets)]), range(1), recorder=recorder)
    recorder.close()
    assert recorder.last is not None
    found = recorder.last.over_time
    assert len(found) == 2 * (3 if cell == "lstm" else 2)
    for (name, i), states in kept.items():
        wanted = [s.grad.square().mean().sqrt().item() for s in states if s.grad is not None]
        assert len(wanted) == T
        quantity = {"h": "delta_rms", "c": "cell_delta_rms"}[name]
        np.testing.assert_allclose(found[quantity, i], wanted, rtol=1e-9)
        if name == "h":
            sizes = [h.detach().square().mean().sqrt().item() for h in states]
            np.testing.assert_allclose(found["activation_rms", i], sizes, rtol=1e-9)


def test_with_an_open_forget_gate_the_error_survives_in_the_cell_state(tmp_path: Path) -> None:
    """dL/dc_t loses less than a third over 28 steps, where dL/dh_t, which must pass the gates, loses most."""
    words = [
        *("model=lstm", "data=sequential_digits", "model.width=16", "model.gate_bias=5"),
        *("data.steps=pixels", "train.max_steps=1", "train.batch_size=16", f"outputs={tmp_path}"),
    ]
    run = dlexp.run(words, quiet=True)
    table = run.over_time
    c, h = table["cell_delta_rms"].to_numpy(), table["delta_rms"].to_numpy()
    assert len(table) == 64 and list(table["time"]) == list(range(64))
    assert 2 / 3 < c[-29] / c[-1] < 1
    assert h[-29] < h[-1] / 5
    first = run.summary["layers"][0]["over_time"]["first"]
    assert first["cell_delta_rms"] == pytest.approx(list(c))


@pytest.mark.parametrize("cell", PEERS)
def test_dropout_and_normalization_stand_behind_each_cell(cell: str) -> None:
    """Normalized, then dropped, before the next cell and before the readout; never within the recurrence."""
    dropout = partial(nn.Dropout, 0.5)
    model = network(cell, every_step=True, normalization=nn.LayerNorm, dropout=dropout)
    with torch.no_grad():
        for norm, _ in model.between:
            norm.weight.uniform_()
            norm.bias.uniform_()
    alone = []  # each knows nothing of what follows it
    for own in model.cells:
        alone.append(PEERS[cell](own.input_size, H, batch_first=True).double())
        for name, p in own.named_parameters():
            getattr(alone[-1], f"{name}_l0").data.copy_(p.data)
    torch.manual_seed(3)
    outputs = model(sequences())
    torch.manual_seed(3)
    signal = sequences()
    for peer_of_cell, (norm, _) in zip(alone, model.between, strict=True):
        h = functional.layer_norm(peer_of_cell(signal)[0], (H,), norm.weight, norm.bias)
        signal = functional.dropout(h.reshape(-1, H), 0.5).view(B, T, H)
    torch.testing.assert_close(outputs, model.readout(signal))


def test_groups_are_those_of_the_units_of_one_time_step() -> None:
    """PyTorch's group norm takes the second dimension, of sequences time, for the channels."""
    model = network("gru", layers=1, width=6, every_step=True, normalization=partial(nn.GroupNorm, 2))
    plain = network("gru", layers=1, width=6, every_step=True)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("between")})
    h = unroll(plain.cells[0], sequences()).unflatten(2, (2, 3))
    h = (h - h.mean(3, keepdim=True)) / (h.var(3, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(sequences()), plain.readout(h.flatten(2)))


@pytest.mark.parametrize("model", ["model=rnn", "model=lstm", "model=gru"])
def test_dropout_and_normalization_are_words(model: str) -> None:
    """One of each behind each cell; without the words none; in evaluation nothing is dropped."""
    words = [model, "data=sequential_digits", "model.layers=2"]
    both = built(*words, "dropout=standard", "dropout.p=0.2", "normalization=layer")
    kinds = [[type(m) for m in between] for between in both.between]
    assert kinds == [[nn.LayerNorm, nn.Dropout]] * 2
    assert [between[1].p for between in both.between] == [0.2, 0.2]
    assert [list(between) for between in built(*words).between] == [[], []]
    dropped = built(*words, "dropout=standard").eval()
    x = torch.randn(3, 8, 8)
    torch.testing.assert_close(dropped(x), built(*words)(x))


def test_a_character_model_takes_them_too() -> None:
    words = ["model=char_lm", "data=text", "data.characters=3000", "train.batch_size=8"]
    model = built(*words, "dropout=standard", "normalization=rms")
    assert [type(m) for m in model.between[0]] == [nn.RMSNorm, nn.Dropout]


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
        (
            ["model=lstm", "data=sequential_digits", "normalization=batch"],
            (
                r"normalization=batch: would mix the time steps of a recurrent net; allowed: none, layer,"
                r" rms, group"
            ),
        ),
        (
            ["model=gru", "data=sequential_digits", "normalization=layer", "normalization.position=after"],
            (
                r"normalization\.position=after: the activation is inside the cell, and what the cell hands"
                r" on has one place to be normalized; allowed: before"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}$"):
        built(*words)

"""Single neurons do what their equations say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dlexp
from dlexp.build.assemble import Parts, assemble
from dlexp.build.neuron import McCullochPitts, Neuron, perceptron
from dlexp.compose import compose
from dlexp.errors import UserError

BITS = torch.tensor(list(product([0.0, 1.0], repeat=3)))  # (8, 3)


def parts(*words: str) -> Parts:
    torch.manual_seed(0)
    return assemble(compose(list(words)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("weight", "threshold", "inhibitory", "fires"),
    [
        ([1, 1, 1], 3, [], all),
        ([1, 1, 1], 1, [], any),
        ([1, 1, 1], 2, [], lambda x: sum(x) >= 2),
        ([1, 0, 1], 2, [], lambda x: x[0] and x[2]),
        ([1, 1, 1], 1, [2], lambda x: (x[0] or x[1]) and not x[2]),
        ([1, 1, 1], 0, [0], lambda x: not x[0]),
        ([1, 1, 1], 0, [0, 1], lambda x: not (x[0] or x[1])),
    ],
)
def test_a_mcculloch_pitts_unit_is_its_truth_table(
    weight: list[float], threshold: float, inhibitory: list[int], fires: Callable[[list[float]], object]
) -> None:
    """All eight patterns of three bits; an inhibitory input vetoes whatever the others say."""
    unit = McCullochPitts(torch.tensor(weight, dtype=torch.float32), threshold, inhibitory)
    table = [[float(bool(fires(row)))] for row in BITS.tolist()]
    assert unit(BITS).tolist() == table


@pytest.mark.parametrize(("gate", "threshold"), [("and", 2), ("or", 1)])
def test_a_mcculloch_pitts_unit_only_answers(gate: str, threshold: int, tmp_path: Path) -> None:
    """Nothing to learn: no step is made, and it is right from the start; no initializer touches it."""
    words = ["model=mcculloch_pitts", "data=gate", f"data.gate={gate}", f"model.threshold={threshold}"]
    run = dlexp.run([*words, "initializer=zeros", f"outputs={tmp_path}"], quiet=True)
    assert (run.summary["status"], run.summary["steps"]) == ("finished", 0)
    assert run.summary["metrics"]["accuracy/test"] == 1.0


def test_a_perceptron_says_yes_above_its_threshold() -> None:
    """x1 + x2 > 1.5 is AND: threshold 1.5 is bias -1.5."""
    model = perceptron((2,), 1)
    weight, bias = model.parameters()
    weight.data.fill_(1.0)
    bias.data.fill_(-1.5)
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert (model(x) > 0).tolist() == [[False], [False], [False], [True]]


def test_neurons_by_hand_are_a_linear_layer_and_a_sigmoid() -> None:
    """Outputs and gradients, in float64."""
    torch.manual_seed(0)
    own = nn.Sequential(Neuron((2, 3), 4), nn.Sigmoid()).double()
    peer = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Sigmoid()).double()
    for p, q in zip(own.parameters(), peer.parameters(), strict=True):
        q.data.copy_(p.data)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(own(x), peer(x))
    own(x).square().sum().backward()
    peer(x).square().sum().backward()
    for p, q in zip(own.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_a_neuron_starts_where_a_linear_layer_does() -> None:
    """Under initializer=pytorch_default: the same bounds, and all but the same variance."""
    weight, bias = Neuron((400,), 50).parameters()
    assert 0.99 / 20 < weight.abs().max() <= 1 / 20
    assert bias.abs().max() <= 1 / 20
    assert weight.var().item() == pytest.approx(1 / (3 * 400), rel=0.05)


def test_a_neuron_learns_a_gate(tmp_path: Path) -> None:
    """With the sigmoid as its head, on probabilities; the layer is on record."""
    words = ["model=neuron", "head=sigmoid", "loss=bce", "data=gate", "data.gate=and", "optimizer.lr=3"]
    run = dlexp.run([*words, "train.epochs=5", f"outputs={tmp_path}"], quiet=True)
    assert run.summary["metrics"]["accuracy/test"] == 1.0
    assert [layer["kind"] for layer in run.summary["layers"]] == ["Neuron"]


def _difference(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """dL/dz by the textbook, (B, K)."""
    if name == "linear_regression":
        return 2 * (outputs - targets)
    if name == "logistic_regression":
        return outputs.sigmoid() - targets
    return outputs.softmax(dim=1) - functional.one_hot(targets, outputs.shape[1])


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize(
    ("name", "data"),
    [("linear_regression", "line"), ("logistic_regression", "gate"), ("softmax_regression", "digits")],
)
def test_regressions_have_the_gradients_of_the_textbook(name: str, data: str, bias: str) -> None:
    """dL/dW = dL/dz^T x / B, and dL/db its sum over the batch; without intercept there is no b."""
    made = parts(f"model={name}", f"data={data}", f"model.bias={bias}")
    x, targets = made.data.train.inputs[:32], made.data.train.targets[:32]
    outputs = made.model(x)
    made.loss(outputs, targets).backward()
    delta = _difference(name, outputs.detach(), targets) / 32
    right = [delta.T @ x.flatten(1), *([delta.sum(dim=0)] if bias == "true" else [])]
    for p, wanted in zip(made.model.parameters(), right, strict=True):
        torch.testing.assert_close(p.grad, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "model=perceptron",
            (
                r"model=perceptron: answers yes or no, one output; the data asks for 10; allowed:"
                r" task=binary, or data with one output"
            ),
        ),
        (
            "model=mcculloch_pitts task=binary",
            (
                r"model=mcculloch_pitts: takes inputs of 0 and 1; the data has -\S+ to \S+; allowed: Boolean"
                r" data with data\.standardize=none"
            ),
        ),
        (
            "model=mcculloch_pitts data=gate model.weights=[1]",
            r"model\.weights=\[1\]: allowed: null or 2 numbers, 0 or 1",
        ),
        (
            "model=mcculloch_pitts data=gate model.inhibitory=[0,2]",
            r"model\.inhibitory=\[0, 2\]: allowed: indices from 0 to 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: str, text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}$"):
        parts(*words.split())

"""Every head gives what its YAML file says, and passes the gradients that its comment claims."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

import dlexp
from dlexp.compose import CONFIGS
from dlexp.errors import UserError

WORDS = sorted(path.stem for path in (CONFIGS / "head").glob("*.yaml"))
Z = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
P = Z.exp() / Z.exp().sum(dim=1, keepdim=True)

# word -> values at Z, and the gradient of the sum of their squares, from the formulas
FORMULAS: dict[str, tuple[Tensor, Tensor]] = {
    "auto": (Z, 2 * Z),
    "linear": (Z, 2 * Z),
    "relu": (Z * (Z > 0), 2 * Z * (Z > 0)),
    "softplus": (torch.log(1 + Z.exp()), 2 * torch.log(1 + Z.exp()) / (1 + torch.exp(-Z))),
    "sigmoid": (1 / (1 + torch.exp(-Z)), 2 * Z.sigmoid() ** 2 * (1 - Z.sigmoid())),
    "tanh": (Z.sinh() / Z.cosh(), 2 * Z.tanh() / Z.cosh() ** 2),
    "softmax": (P, 2 * P * (P - (P**2).sum(dim=1, keepdim=True))),
    "log_softmax": (P.log(), 2 * (P.log() - P * P.log().sum(dim=1, keepdim=True))),
    "hardmax": ((P.amax(dim=1, keepdim=True) == P).double(), torch.zeros_like(Z)),
}
RANGE = {  # what `gives` promises
    "linear": (-math.inf, math.inf),
    "non_negative": (0, math.inf),
    "probabilities": (0, 1),
    "bounded": (-1, 1),
    "log_probabilities": (-math.inf, 0),
    "hard": (0, 1),
}


def make(word: str) -> tuple[nn.Module, str]:
    """The module that the command line would build, and what it gives."""
    config = OmegaConf.load(CONFIGS / "head" / f"{word}.yaml")
    gives = config.pop("gives")
    return instantiate(config)(), gives


def test_every_word_is_tested() -> None:
    """A new YAML file needs its formula here."""
    assert sorted(FORMULAS) == WORDS


@pytest.mark.parametrize("word", WORDS)
def test_value_gradient_and_range(word: str) -> None:
    """In float64, of a sum of squares."""
    head, gives = make(word)
    z = Z.clone().requires_grad_()
    value = head(z)
    value.square().sum().backward()
    torch.testing.assert_close(value.detach(), FORMULAS[word][0])
    torch.testing.assert_close(z.grad, FORMULAS[word][1])
    low, high = RANGE[gives]
    assert low <= value.min() and value.max() <= high


def test_hardmax_chooses_one_of_equal_outputs() -> None:
    """The first one; time steps each by themselves."""
    head, _ = make("hardmax")
    z = torch.tensor([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]])
    assert head(z).tolist() == [[[0, 1, 0], [1, 0, 0]]]


@pytest.mark.parametrize(
    "words",
    [
        "head=linear",
        "head=log_softmax loss=nll",
        "head=softmax loss=log_loss",
        "head=sigmoid loss=bce task=multi_label",
        "head=sigmoid loss=bce task=binary",
        "head=tanh loss=mse task=regression",
        "head=relu loss=mae task=regression",
        "head=softplus loss=huber task=regression",
        "head=hardmax loss=mse task=multi_label",
    ],
)
def test_a_run_with_each(words: str, tmp_path: Path) -> None:
    """With a loss that takes what it gives."""
    run = dlexp.run([*words.split(), "debug=quick", "model.depth=1", f"outputs={tmp_path}"], quiet=True)
    assert run.summary["status"] == "finished"


def test_log_softmax_and_nll_are_cross_entropy(tmp_path: Path) -> None:
    """So are softmax and log_loss, but for rounding: the same run in three words."""
    losses = [
        dlexp.run([*words, "debug=quick", "model.depth=1", f"outputs={tmp_path}"], quiet=True).summary[
            "metrics"
        ]["loss/validation"]
        for words in ([], ["head=log_softmax", "loss=nll"], ["head=softmax", "loss=log_loss"])
    ]
    assert losses[1:] == [pytest.approx(losses[0], rel=1e-5)] * 2


def test_a_loss_that_has_no_use_for_it_is_refused() -> None:
    """Softmax twice is the usual mistake."""
    with pytest.raises(
        UserError, match=r"loss=cross_entropy: takes linear .*head=softmax gives probabilities"
    ):
        dlexp.run(["head=softmax"], quiet=True)
    with pytest.raises(UserError, match=r"loss=cross_entropy: .*head=hardmax gives hard"):
        dlexp.run(["head=hardmax"], quiet=True)


def test_one_number_for_the_index_of_the_class(tmp_path: Path) -> None:
    """The wrong way to treat categories is task=regression; rounding gives a class back."""
    words = ["task=regression", "metrics=[rmse,rounded_accuracy]", "optimizer=adam", "train.epochs=2"]
    run = dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    assert 0 <= run.summary["metrics"]["rounded_accuracy/validation"] <= 1

"""Each normalization is that of its paper, for vectors and for pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.build import normalization
from dlexp.build.mlp import mlp
from dlexp.errors import UserError

EPS = 0.01  # large, so that a wrong one would show
GROUPS = 3
MADE: dict[str, Callable[..., nn.Module]] = {
    "batch": partial(normalization.batch, eps=EPS),
    "layer": partial(normalization.layer, eps=EPS),
    "rms": partial(normalization.rms, eps=EPS),
    "group": partial(normalization.group, num_groups=GROUPS, eps=EPS),
}


def by_hand(x: Tensor, over: list[int], *, centre: bool = True) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over some dimensions."""
    if centre:
        x = x - x.mean(over, keepdim=True)
    return x / (x.pow(2).mean(over, keepdim=True) + EPS).sqrt()


@pytest.mark.parametrize(
    ("kind", "over"),
    [("batch", [0]), ("layer", [1]), ("rms", [1])],
)
def test_vectors_are_normalized_as_the_formula_says(kind: str, over: list[int]) -> None:
    """Batch norm over the samples, the others over the features of one."""
    x = torch.randn(8, 6, dtype=torch.float64) * 3 + 1
    made = MADE[kind](6).double()
    torch.testing.assert_close(made(x), by_hand(x, over, centre=kind != "rms"))


@pytest.mark.parametrize(("kind", "over"), [("batch", [0, 2, 3]), ("layer", [1, 2, 3])])
def test_pictures_are_normalized_as_the_formula_says(kind: str, over: list[int]) -> None:
    """Batch norm over samples and places, layer norm over channels and places."""
    x = torch.randn(8, 6, 4, 5, dtype=torch.float64) * 3 + 1
    made = MADE[kind](6, 2).double()
    torch.testing.assert_close(made(x), by_hand(x, over))


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 4, 5)])
def test_groups_are_normalized_by_themselves(shape: tuple[int, ...]) -> None:
    """A third of the features or channels at a time, of one sample."""
    x = torch.randn(*shape, dtype=torch.float64) * 3 + 1
    made = MADE["group"](6, len(shape) - 2).double()
    parts = [by_hand(part, list(range(1, len(shape)))) for part in x.chunk(GROUPS, dim=1)]
    torch.testing.assert_close(made(x), torch.cat(parts, dim=1))


@pytest.mark.parametrize(("dims", "kind"), [(0, nn.BatchNorm1d), (2, nn.BatchNorm2d)])
def test_batch_norm_takes_its_values(dims: int, kind: type[nn.Module]) -> None:
    """Also the running statistics: new = (1 - momentum) old + momentum batch."""
    made = normalization.batch(6, dims, eps=EPS, momentum=0.3, affine=False)
    assert type(made) is kind
    assert list(made.parameters()) == []
    made(torch.full((4, 6, 2, 2) if dims else (4, 6), 5.0))
    torch.testing.assert_close(made.running_mean, torch.full((6,), 1.5))


@pytest.mark.parametrize("dims", [0, 2])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_and_group_norm_learn_a_scale_only_if_asked(dims: int, affine: bool) -> None:
    """A scale and a shift for each feature or channel."""
    made = [
        normalization.layer(6, dims, elementwise_affine=affine),
        normalization.group(6, dims, num_groups=2, affine=affine),
    ]
    for module in made:
        assert [tuple(p.shape) for p in module.parameters()] == ([(6,), (6,)] if affine else [])
    assert len(list(normalization.rms(6, elementwise_affine=affine).parameters())) == affine


def test_rms_norm_refuses_pictures() -> None:
    """PyTorch has none that goes by channel."""
    with pytest.raises(UserError, match=r"^normalization=rms: is for vectors; allowed for pictures: none, b"):
        normalization.rms(6, 2)


@pytest.mark.parametrize(("dims", "word"), [(0, "features"), (2, "channels")])
def test_groups_of_different_size_are_refused(dims: int, word: str) -> None:
    """With the number that they have to divide."""
    with pytest.raises(UserError, match=f"^normalization.num_groups=4: {word} come .* what divides 6$"):
        normalization.group(6, dims, num_groups=4)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "locally_connected", "residual_mlp"])
@pytest.mark.parametrize("choice", ["batch", "layer", "group"])
def test_dense_and_convolutional_models_take_each(model: str, choice: str, tmp_path: Path) -> None:
    """As words, for a step."""
    words = [f"model={model}", f"normalization={choice}", "train.max_steps=1", f"outputs={tmp_path}"]
    assert dlexp.run(words, quiet=True).summary["status"] == "finished"


def test_batch_norm_refuses_single_samples(tmp_path: Path) -> None:
    """Its statistics would be those of one number."""
    words = ["normalization=batch", "train.batch_size=1", f"outputs={tmp_path}"]
    with pytest.raises(UserError, match=r"^normalization=batch: needs two samples or more"):
        dlexp.run(words, quiet=True)


def test_a_class_of_pytorchs_works_for_vectors() -> None:
    """Somebody's own YAML file may name it directly."""
    model = mlp((4,), 3, depth=1, width=5, bias=False, activation=nn.ReLU, normalization=nn.BatchNorm1d)
    assert isinstance(model[2], nn.BatchNorm1d)
    assert model(torch.randn(6, 4)).shape == (6, 3)


def test_what_batch_norm_takes_out_is_the_bias() -> None:
    """So `model.bias=false` in front of it changes nothing; where it stays its gradient is rounding."""
    layer, norm = nn.Linear(4, 6).double(), normalization.batch(6).double()
    x = torch.randn(16, 4, dtype=torch.float64)
    with_bias = norm(layer(x))
    with_bias.pow(3).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None
    assert layer.bias.grad.abs().max() < 1e-12 < 1e-3 < layer.weight.grad.abs().max()
    torch.testing.assert_close(norm(x @ layer.weight.T), with_bias)

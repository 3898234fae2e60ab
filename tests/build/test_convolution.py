"""Networks for pictures are what their arguments say, and are recorded by channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from record.second_opinion import adam, assert_same, column, expected, random_batches, recorded, sgd
from torch import Tensor, nn

import dlexp
from dlexp.build.convolution import LocallyConnected2d, ResNetBlock, cnn, resnet
from dlexp.build.initialize import initialize
from dlexp.build.normalization import batch, layer
from dlexp.build.residual import Stream
from dlexp.errors import UserError

LENET: dict[str, Any] = {
    "shared": True,
    "depth": 2,
    "channels": 3,
    "kernel": 3,
    "pool": "max",
    "width": 7,
    "bias": True,
    "activation": nn.Tanh,
}


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.children()]


def own_deltas(model: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """delta_rms of each layer and stream by plain autograd, in the order of the modules."""
    kept: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: object, z: Tensor) -> None:
        z.retain_grad()
        kept[module] = z

    kinds = nn.Linear | nn.Conv2d | LocallyConnected2d | Stream
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    handles = [module.register_forward_hook(keep) for module in layers]
    nn.functional.cross_entropy(model(x), y).backward()
    for handle in handles:
        handle.remove()
    gradients = [kept[module].grad for module in layers]
    return [g.pow(2).mean().sqrt().item() for g in gradients if g is not None]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_pictures_of_each_size_give_class_scores(shape: tuple[int, ...], shared: bool) -> None:
    """Digits, MNIST, CIFAR-10."""
    model = cnn(shape, 10, **LENET | {"shared": shared})
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    assert resnet(shape, 10, blocks=1, width=2, bias=False, activation=nn.ReLU)(
        torch.zeros(2, *shape)
    ).shape == (2, 10)


@pytest.mark.parametrize(("position", "around"), [("before", ["Norm", "Tanh"]), ("after", ["Tanh", "Norm"])])
def test_stages_stand_in_their_order(position: str, around: list[str]) -> None:
    """Normalizations of pictures in the stages, of vectors in the dense part; channels double."""
    model = cnn(
        (2, 8, 8),
        10,
        **LENET | {"pool": "average"},
        normalization=batch,
        position=position,
        dropout=nn.Dropout,
    )
    picture = [{"Norm": "BatchNorm2d"}.get(word, word) for word in around]
    vector = [{"Norm": "BatchNorm1d"}.get(word, word) for word in around]
    stage = ["Conv2d", *picture, "AvgPool2d"]
    assert kinds(model) == [*stage * 2, "Flatten", "Linear", *vector, "Dropout", "Linear"]
    matrices = [tuple(p.shape) for p in model.parameters() if p.dim() >= 2]
    assert matrices == [(3, 2, 3, 3), (6, 3, 3, 3), (7, 6 * 2 * 2), (10, 7)]
    assert len(set(model)) == len(model)  # no module stands in two places


@pytest.mark.parametrize("shared", [True, False])
def test_without_bias_no_layer_has_one(shared: bool) -> None:
    """Also the convolutions, for batch norm behind them."""
    model = cnn((1, 8, 8), 10, **LENET | {"shared": shared, "bias": False})
    assert {p.dim() for p in model.parameters()} == {2, 4}


def test_every_quantity_of_a_convolution_agrees_with_autograd() -> None:
    """In float64, over several steps; a unit is a channel, and one of them is dead."""
    torch.manual_seed(0)
    model = cnn((2, 8, 8), 5, **LENET | {"activation": nn.ReLU}).double()
    first = model[0]
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    with torch.no_grad():
        first.bias[0] = -200
    batches = random_batches(3, 16, 2, 8, 8)
    wanted = expected(model, batches, adam())
    assert wanted[0]["dead_fraction"][0] == 1 / 3
    assert_same(recorded(model, batches, adam()), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["cnn", "locally_connected", "resnet"])
def test_delta_rms_is_that_of_autograd(kind: str) -> None:
    """In float64, of every layer, shortcuts of 1x1 among them."""
    torch.manual_seed(0)
    if kind == "resnet":
        model = resnet((2, 8, 8), 5, blocks=2, width=2, bias=True, activation=nn.Tanh).double()
    else:
        model = cnn((2, 8, 8), 5, **LENET | {"shared": kind == "cnn"}).double()
    ((x, y),) = random_batches(1, 16, 2, 8, 8)
    wanted = own_deltas(model, x, y)
    (row,) = recorded(model, [(x, y)], sgd())
    assert len(wanted) == {"resnet": 6 * 2 + 2 + 2 + 6}.get(kind, 4)
    assert column(row, "delta_rms") == pytest.approx(wanted, rel=1e-9)


def copied(convolution: nn.Conv2d, size: tuple[int, int]) -> LocallyConnected2d:
    """The same filters at every place."""
    local = LocallyConnected2d(
        convolution.in_channels,
        convolution.out_channels,
        size,
        convolution.kernel_size[0],
        bias=convolution.bias is not None,
    ).double()
    places = size[0] * size[1]
    with torch.no_grad():
        local.weight.copy_(convolution.weight.repeat(places, 1, 1, 1))
        if local.bias is not None and convolution.bias is not None:
            local.bias.copy_(convolution.bias.repeat(places))
    return local


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_a_locally_connected_layer_of_equal_filters_is_a_convolution(kernel: int, bias: bool) -> None:
    """Outputs, the gradient of the inputs, and the sum over all places of those of a filter."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, kernel, padding=kernel // 2, bias=bias).double()
    local = copied(convolution, (4, 6))
    x = torch.randn(5, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    z, w = local(x), convolution(x)
    assert z.shape == (5, 3, 4, 6)
    torch.testing.assert_close(z, w)
    given = torch.randn_like(z)
    of_x, of_weight, *of_bias = torch.autograd.grad(z, [x, *local.parameters()], given)
    wanted_x, wanted_weight, *wanted_bias = torch.autograd.grad(w, [x, *convolution.parameters()], given)
    torch.testing.assert_close(of_x, wanted_x)
    torch.testing.assert_close(of_weight.view(24, 3, 2, kernel, kernel).sum(0), wanted_weight)
    for mine, wanted in zip(of_bias, wanted_bias, strict=True):
        torch.testing.assert_close(mine.view(24, 3).sum(0), wanted)


def test_a_locally_connected_layer_by_hand() -> None:
    """Each place multiplies what is around it with filters of its own; and by differences (gradcheck)."""
    torch.manual_seed(0)
    local = LocallyConnected2d(2, 3, (3, 4), 3).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    framed = nn.functional.pad(x, (1, 1, 1, 1))
    filters, shifts = local.weight.view(3, 4, 3, 2, 3, 3), local.bias.view(3, 4, 3)  # type: ignore[union-attr]
    for row in range(3):
        for place in range(4):
            around = framed[:, :, row : row + 3, place : place + 3]
            wanted = torch.einsum("bcij,dcij->bd", around, filters[row, place]) + shifts[row, place]
            torch.testing.assert_close(local(x)[:, :, row, place], wanted)
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(local, {"weight": w, "bias": b}, (x,)),
        (x.requires_grad_(), *local.parameters()),
    )


def test_a_locally_connected_layer_starts_like_a_convolution() -> None:
    """Initializers see the numbers of one filter as its fan_in: var(w) = 2 / (C kernel^2)."""
    local = LocallyConnected2d(4, 8, (6, 6), 3)
    assert local.weight.var().item() == pytest.approx(1 / (3 * 36), rel=0.05)  # U(+-1/sqrt(36))
    initialize(local, nn.init.kaiming_normal_, bias=0.0)
    assert local.weight.var().item() == pytest.approx(2 / 36, rel=0.05)
    assert "4, 8, size=(6, 6), kernel=3" in repr(local)


def test_a_resnet_block_is_the_formula() -> None:
    """activation(x + f(x)); where f halves the picture, a convolution of 1x1 takes the place of x."""
    torch.manual_seed(0)
    same = ResNetBlock(4, 4, 1, nn.Tanh, layer, bias=True)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(same(x), torch.tanh(x + same.branch(x)))
    assert kinds(same.branch) == ["Conv2d", "GroupNorm", "Tanh", "Conv2d", "GroupNorm"]
    half = ResNetBlock(4, 8, 2, nn.Tanh, layer, bias=False)
    wanted = torch.tanh(half.shortcut[1](half.shortcut[0](x)) + half.branch(x))
    torch.testing.assert_close(half(x), wanted)
    assert half(x).shape == (2, 8, 3, 3)
    assert tuple(half.shortcut[0].weight.shape) == (8, 4, 1, 1)


def test_a_resnet_has_batch_norm_unless_told_otherwise() -> None:
    """Its first stage keeps the channels; the layers are counted as in the paper, shortcuts apart."""
    for normalization, kind in ((None, nn.BatchNorm2d), (layer, nn.GroupNorm)):
        model = resnet(
            (1, 8, 8), 10, blocks=2, width=4, bias=False, activation=nn.ReLU, normalization=normalization
        )
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        shortcuts = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert (len(layers) - len(shortcuts), len(shortcuts)) == (6 * 2 + 2, 2)
        assert sum(isinstance(m, kind) for m in model.modules()) == len(layers) - 1
        assert isinstance(layers[-1], nn.Linear) and layers[-1].in_features == 16


def test_the_activation_behind_the_sum_is_recorded_with_the_stream() -> None:
    """Of a block the last layer of the branch has none, and the shortcut; units are channels."""
    model = resnet((1, 8, 8), 5, blocks=1, width=2, bias=False, activation=nn.Tanh).double()
    (row,) = recorded(model, random_batches(1, 16, 1, 8, 8), sgd())
    without = [share is None for share in column(row, "saturated_fraction")]
    block, changed = [False, True, False], [True, False, True, False]  # with a shortcut in front
    assert without == [False, *block, *changed, *changed, True]  # the last one is the output layer


def test_a_dead_channel_of_the_stream_is_seen() -> None:
    """0 for all samples at all places; and how large the stream is, by hand."""
    torch.manual_seed(0)
    model = resnet((1, 8, 8), 5, blocks=1, width=4, bias=True, activation=nn.ReLU, normalization=layer)
    block = model.double()[3]
    assert isinstance(block, ResNetBlock)
    with torch.no_grad():
        block.branch[-1].bias[1] = -100
    ((x, y),) = random_batches(1, 16, 1, 8, 8)
    a = block(model[:3](x))
    (row,) = recorded(model, [(x, y)], sgd())
    assert column(row, "dead_fraction")[3] == 0.25
    assert column(row, "activation_rms")[3] == pytest.approx(a.pow(2).mean().sqrt().item())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model=cnn", "data=sine"],
            r"^model=cnn: takes pictures \(C, H, W\); a sample of the data is \(1,\); allowed: data=",
        ),
        (["model=locally_connected", "data=sine"], "^model=locally_connected: takes pictures"),
        (["model=resnet", "data=sine"], "^model=resnet: takes pictures"),
        (["model=cnn", "model.kernel=4"], "^model.kernel=4: has no middle; allowed: 1, 3, 5 and so on$"),
        (
            ["model=cnn", "model.depth=4"],
            "^model.depth=4: so many pools leave nothing of 8x8 pixels; allowed: 3 or less$",
        ),
        (["model=cnn", "normalization=rms"], "^normalization=rms: is for vectors"),
        (
            ["model=resnet", "normalization=layer", "normalization.position=after"],
            "^normalization.position=after: model=resnet normalizes each branch before it is added",
        ),
        (["model=resnet", "dropout=standard"], "^dropout=standard: model=resnet takes none"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    """In one line, before a folder exists."""
    with pytest.raises(UserError, match=said):
        dlexp.run([*words, f"outputs={tmp_path}"], quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_channels_that_come_last_are_told() -> None:
    """Eight channels of 8 x 3 pixels are rare."""
    with pytest.raises(UserError, match=r"; or are the channels last\? inputs.transpose\(0, 3, 1, 2\) puts"):
        cnn((8, 8, 3), 10, **LENET)
    with pytest.raises(UserError, match=r"allowed: 1 or less$"):
        cnn((1, 3, 3), 10, **LENET)


def test_three_pools_are_enough_for_a_digit() -> None:
    """8 pixels become 4, 2 and 1."""
    assert cnn((1, 8, 8), 10, **LENET | {"depth": 3})(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("model", ["cnn", "locally_connected", "resnet"])
def test_digits_are_learned(model: str, tmp_path: Path) -> None:
    """Far above the 10% of a guess, in a second or two."""
    words = [
        *(f"model={model}", "optimizer=adam", "optimizer.lr=0.01", "train.max_steps=60"),
        *("record=off", "device=cpu", f"outputs={tmp_path}"),
    ]
    assert dlexp.run(words, quiet=True).summary["metrics"]["accuracy/test"] > 0.8

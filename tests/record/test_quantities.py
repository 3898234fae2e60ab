"""Every recorded number has a slow second opinion in plain autograd (second_opinion.py)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from second_opinion import (
    Memory,
    OptimizerFactory,
    adam,
    assert_same,
    column,
    expected,
    flat,
    nan_positions,
    random_batches,
    ratio,
    recorded,
    sgd,
)
from torch import Tensor, nn

from dlexp.build.mlp import mlp
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.train.loop import fit
from dlexp.train.step import evaluate

Factory = Callable[[], nn.Module]
FEATURES, CLASSES = 7, 5


def network(
    activation: Factory,
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Factory | None = None,
    *,
    depth: int = 3,
    width: int = 12,
    bias: bool = True,
) -> nn.Sequential:
    """An MLP in float64 with large weights, so that activations saturate, and one dead unit a layer."""
    torch.manual_seed(3)
    model = mlp(
        (FEATURES,),
        CLASSES,
        depth=depth,
        width=width,
        bias=bias,
        activation=activation,
        normalization=normalization,
        position=position,
        dropout=dropout,
    ).double()
    linear = [module for module in model if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for module in linear:
            module.weight.mul_(4)
            if bias:
                module.bias.normal_()
        for module in model:
            if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):
                module.weight.uniform_(0.5, 3)
                module.bias.normal_()
                module.bias[0] = -60  # behind a normalization this is what kills a unit
        if bias and normalization is None:
            for module in linear[:-1]:
                module.bias[0] = -200
    return model


HALF = partial(nn.Dropout, 0.5)
CASES = [
    pytest.param(nn.ReLU, None, "before", None, id="relu"),
    pytest.param(nn.Sigmoid, None, "before", None, id="sigmoid"),
    pytest.param(nn.Tanh, None, "before", None, id="tanh"),
    pytest.param(nn.Softsign, None, "before", None, id="softsign"),
    pytest.param(nn.ELU, None, "before", None, id="elu"),
    pytest.param(nn.LeakyReLU, None, "before", None, id="leaky_relu"),
    pytest.param(nn.Identity, None, "before", None, id="identity"),
    pytest.param(nn.ReLU, nn.BatchNorm1d, "before", None, id="relu-batch-before"),
    pytest.param(nn.ReLU, nn.BatchNorm1d, "after", None, id="relu-batch-after"),
    pytest.param(nn.Tanh, nn.LayerNorm, "before", None, id="tanh-layer-before"),
    pytest.param(nn.ELU, nn.LayerNorm, "after", None, id="elu-layer-after"),
    pytest.param(nn.ReLU, None, "before", HALF, id="relu-dropout"),
    pytest.param(nn.Identity, None, "before", HALF, id="identity-dropout"),
    pytest.param(nn.Sigmoid, nn.BatchNorm1d, "before", HALF, id="sigmoid-batch-before-dropout"),
    pytest.param(nn.Softsign, nn.BatchNorm1d, "after", HALF, id="softsign-batch-after-dropout"),
    pytest.param(nn.LeakyReLU, nn.LayerNorm, "before", HALF, id="leaky_relu-layer-before-dropout"),
]
OPTIMIZERS = [
    pytest.param(sgd(), id="sgd"),
    pytest.param(sgd(0.03, 0.9), id="momentum"),
    pytest.param(adam(), id="adam"),
]


@pytest.mark.parametrize(("activation", "normalization", "position", "dropout"), CASES)
def test_every_quantity_agrees_with_autograd(
    activation: Factory,
    normalization: Callable[[int], nn.Module] | None,
    position: str,
    dropout: Factory | None,
) -> None:
    """In float64 the recorded numbers are those of plain autograd, over several steps."""
    model = network(activation, normalization, position, dropout)
    batches = random_batches(3, 16, FEATURES)
    wanted = expected(model, batches, adam())
    assert_same(recorded(model, batches, adam()), wanted, rtol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_ratio_is_that_of_the_true_step(optimizer: OptimizerFactory) -> None:
    """The change of the weights is read off the weights, so momentum and Adam's scaling are in it."""
    model = network(nn.Tanh, nn.BatchNorm1d)
    batches = random_batches(5, 16, FEATURES)
    wanted = expected(model, batches, optimizer)
    assert_same(recorded(model, batches, optimizer), wanted, rtol=1e-6)


def test_the_cases_have_something_to_find() -> None:
    """The networks of this file have dead units, saturated activations and gradients that are 0."""
    batches = random_batches(1, 16, FEATURES)
    (relu,) = expected(network(nn.ReLU), batches, sgd())
    assert all(0 < x < 1 for x in relu["dead_fraction"][:-1] if x is not None)
    assert all(0 < x < 1 for x in relu["zero_grad_fraction"] if x is not None)
    for kind in (nn.Sigmoid, nn.Tanh, nn.Softsign, nn.ELU):
        (found,) = expected(network(kind), batches, sgd())
        assert all(0.05 < x < 0.95 for x in found["saturated_fraction"][:-1] if x is not None), kind


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0])
def test_elu_saturates_by_its_own_steepest_slope(alpha: float) -> None:
    """The slope of ELU is at most max(1, alpha), not alpha."""
    model = network(partial(nn.ELU, alpha=alpha))
    batches = random_batches(1, 64, FEATURES)
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, nn.Identity])
def test_activations_without_a_ceiling_do_not_saturate(kind: Factory) -> None:
    """ReLU and its kin have no saturated share, and the record says so; the output has no activation."""
    (row,) = recorded(network(kind), random_batches(1, 16, FEATURES), sgd())
    q = INDEX["saturated_fraction"]
    hidden = ["not measured for this activation"] * 3
    assert [row.reasons[q, i] for i in range(4)] == [*hidden, "no activation module was seen"]
    assert row.reasons[INDEX["dead_fraction"], 3] == "no activation module was seen"


@pytest.mark.parametrize("width", [12, 300])
@pytest.mark.parametrize("kind", [nn.ReLU, nn.Tanh])
def test_float32_is_close_to_float64(kind: Factory, width: int) -> None:
    """A float32 network is measured as precisely as float32 allows."""
    model = network(kind, width=width)
    with torch.no_grad():
        for p in model.parameters():
            p.div_(2)  # far from where float32 rounds a probability to 0
    model.float()
    batches = random_batches(1, 64, FEATURES, dtype=torch.float32)
    wanted = expected(model.double(), [(x.double(), y) for x, y in batches], sgd())
    assert_same(recorded(model.float(), batches, sgd()), wanted, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_large_and_small_layers_side_by_side(optimizer: OptimizerFactory, bias: bool) -> None:
    """Layers of 7x300, 300x300, 300x5 with signals of 160x300: on both sides of the 32768 elements."""
    model = network(nn.Tanh, width=300, bias=bias)
    batches = random_batches(3, 160, FEATURES)
    wanted = expected(model, batches, optimizer)
    assert_same(recorded(model, batches, optimizer), wanted, rtol=1e-6)


def test_different_activations_in_one_network() -> None:
    """Layers of one shape with different activations are not mixed up."""
    torch.manual_seed(0)
    kinds = [nn.Tanh(), nn.ReLU(), nn.ELU(), nn.ELU(2.0), nn.Sigmoid(), nn.LeakyReLU(0.2), nn.Tanh()]
    model = nn.Sequential(*(m for kind in kinds for m in (nn.Linear(9, 9), kind)), nn.Linear(9, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5)
    batches = random_batches(2, 16, 9, classes=3)
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


def test_batches_of_different_sizes() -> None:
    """A batch of another size than the first is measured by its own size."""
    model = network(nn.Sigmoid)
    batches = [random_batches(1, size, FEATURES)[0] for size in (16, 9, 16, 5, 30)]
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


class Twice(nn.Module):
    """The middle layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(7, 6), nn.Linear(6, 6), nn.Linear(6, 5)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(self.shared(x))
        x = self.act(self.shared(x))
        out: Tensor = self.last(x)
        return out


def test_a_layer_used_twice_counts_the_samples_of_both_uses() -> None:
    """delta_rms, activation_rms and dead_fraction are taken over both runs of the layer together."""
    torch.manual_seed(1)
    model = Twice().double()
    twin = copy.deepcopy(model)
    # The same computation as a chain whose third and fifth module are one.
    chain = nn.Sequential(twin.first, nn.ReLU(), twin.shared, nn.ReLU(), twin.shared, nn.ReLU(), twin.last)
    batches = random_batches(3, 6, 7)  # 6 samples, 12 in the shared layer
    wanted = expected(chain, batches, sgd())
    rows = recorded(model, batches, sgd())
    assert_same(rows, wanted, rtol=1e-6)
    assert [x is None for x in column(rows[0], "dead_fraction")] == [True, False, True]


def test_a_module_used_twice_in_a_sequential() -> None:
    """One layer and one activation object at two places of an nn.Sequential."""
    torch.manual_seed(1)
    act, shared = nn.Sigmoid(), nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(7, 6), act, shared, act, shared, act, nn.Linear(6, 5)).double()
    batches = random_batches(2, 16, 7)
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


@pytest.mark.parametrize("channels", [4, 90])
def test_units_of_a_convolution_are_its_channels(channels: int) -> None:
    """A channel is dead when it is 0 for all samples at all places."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3),
        nn.ReLU(),
        nn.Conv2d(channels, 6, 3),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    ).double()
    with torch.no_grad():
        model[0].bias[1] = -100
        model[3].weight.fill_(3)
    batches = random_batches(2, 16, 1, 8, 8)
    wanted = expected(model, batches, sgd())
    assert wanted[0]["dead_fraction"][0] == pytest.approx(1 / channels)
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


@pytest.mark.parametrize("width", [12, 300])
def test_relu_in_place_changes_no_number(width: int) -> None:
    """An activation that overwrites z leaves all quantities as those of the plain one."""
    batches = random_batches(2, 128, FEATURES)
    wanted = expected(network(nn.ReLU, width=width), batches, sgd())
    model = network(partial(nn.ReLU, inplace=True), width=width)
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


def test_dropout_in_place_changes_no_number() -> None:
    """A dropout that overwrites the activation leaves the activation's own numbers as they were."""
    batches = random_batches(2, 16, FEATURES)
    wanted = expected(network(nn.LeakyReLU, dropout=HALF), batches, sgd())
    model = network(nn.LeakyReLU, dropout=partial(nn.Dropout, 0.5, inplace=True))
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


def test_an_activation_that_halves_the_units() -> None:
    """Behind GLU there are half as many activations as pre-activations; each has its own mean."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(7, 12), nn.GLU(), nn.Linear(6, 5)).double()
    x, y = random_batches(1, 16, 7)[0]
    z = model[0](x)
    z.retain_grad()
    nn.functional.cross_entropy(model[2](a := model[1](z)), y).backward()
    (row,) = recorded(model, [(x, y)], sgd())
    assert column(row, "delta_rms")[0] == pytest.approx(z.grad.pow(2).mean().sqrt().item(), rel=1e-6)
    assert column(row, "activation_rms")[0] == pytest.approx(a.pow(2).mean().sqrt().item(), rel=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_a_frozen_layer_has_no_gradient_rather_than_zero(which: int) -> None:
    """grad_norm is absent with its reason; what backward brings to the layer is still measured."""
    model = network(nn.Tanh)
    frozen = [module for module in model if isinstance(module, nn.Linear)][which]
    frozen.requires_grad_(False)
    batches = random_batches(2, 16, FEATURES)
    wanted = expected(model, batches, sgd())
    rows = recorded(model, batches, sgd())
    assert_same(rows, wanted, rtol=1e-6)
    absent = ["grad_norm", "zero_grad_fraction"] + (["delta_rms"] if which == 0 else [])
    reasons = {QUANTITIES[q]: why for (q, i), why in rows[0].reasons.items() if i == which}
    assert reasons == dict.fromkeys(absent, "no gradient")
    assert column(rows[0], "update_ratio")[which] == 0


def test_all_layers_frozen_but_the_normalization() -> None:
    """Training batch normalization alone is recorded too: no layer has a gradient of its own."""
    model = network(nn.ReLU, nn.BatchNorm1d)
    for module in model:
        module.requires_grad_(isinstance(module, nn.BatchNorm1d))
    batches = random_batches(2, 16, FEATURES)
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


def test_half_a_frozen_layer() -> None:
    """A layer with a frozen bias has the gradient of its weight."""
    model = network(nn.Tanh)
    model[1].bias.requires_grad_(False)
    batches = random_batches(2, 16, FEATURES)
    wanted = expected(model, batches, sgd())
    assert_same(recorded(model, batches, sgd()), wanted, rtol=1e-6)


class Sometimes(nn.Module):
    """Has a layer that runs in every other forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.optional, self.last = nn.Linear(7, 6), nn.Linear(6, 6), nn.Linear(6, 5)
        self.act, self.passes = nn.ReLU(), 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        self.passes += 1
        if self.passes % 2 == 0:
            x = self.act(self.optional(x))
        out: Tensor = self.last(x)
        return out


def test_a_layer_that_does_not_run_has_reasons_instead_of_numbers() -> None:
    """Its weights are there, its signals are not; in the step where it runs it has all numbers."""
    torch.manual_seed(1)
    model = Sometimes().double()
    batches = random_batches(4, 16, 7)
    rows = recorded(model, batches, sgd())
    signals = ["delta_rms", "activation_rms", "dead_fraction", "saturated_fraction"]
    idle = dict.fromkeys(signals, "the layer did not run, or returned no tensor")
    idle |= dict.fromkeys(["grad_norm", "zero_grad_fraction"], "no gradient")
    for row in rows:
        found = {QUANTITIES[q]: why for (q, i), why in row.reasons.items() if i == 1}
        runs = row.step % 2 == 1
        assert found == ({"saturated_fraction": "not measured for this activation"} if runs else idle)
        assert nan_positions(row) == []
        assert (column(row, "update_ratio")[1] == 0) == (not runs)


def test_weights_that_are_all_zero_have_no_update_ratio() -> None:
    """Nothing can be said of a change relative to 0."""
    model = network(nn.Sigmoid)
    with torch.no_grad():
        for p in model[1].parameters():
            p.zero_()
    batches = random_batches(2, 16, FEATURES)
    wanted = expected(model, batches, sgd())
    rows = recorded(model, batches, sgd())
    assert_same(rows, wanted, rtol=1e-6)
    assert rows[0].reasons[INDEX["update_ratio"], 0] == "the weights are all 0"
    assert (INDEX["update_ratio"], 0) not in rows[1].reasons


@pytest.mark.parametrize(("size", "absent"), [(7, True), (8, False)])
def test_dead_fraction_needs_eight_samples(size: int, absent: bool) -> None:
    """In a smaller batch units look dead by chance."""
    (row,) = recorded(network(nn.ReLU), random_batches(1, size, FEATURES), sgd())
    reasons = {row.reasons.get((INDEX["dead_fraction"], i)) for i in range(3)}
    assert reasons == ({"fewer than 8 samples"} if absent else {None})


def scaled_mean(scale: float, outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient is of the size of `scale`."""
    return outputs.gather(1, targets[:, None]).mean() * scale


@pytest.mark.parametrize("width", [16, 300])
@pytest.mark.parametrize(
    ("input_scale", "loss_scale"),
    [(1e-30, 1.0), (1.0, 1e-30), (1e25, 1.0), (1.0, 1e25), (1e25, 1e-30), (1e-30, 1e25)],
)
def test_signals_far_from_one_are_measured_right(input_scale: float, loss_scale: float, width: int) -> None:
    """Where squares leave the range of float32 the numbers are still right: not 0, not inf."""
    model = network(nn.ReLU, width=width, bias=False).float()
    batches = random_batches(1, 128, FEATURES, dtype=torch.float32, scale=input_scale)
    loss = partial(scaled_mean, loss_scale)
    by_hand = copy.deepcopy(model)
    wanted = expected(copy.deepcopy(model).double(), [(x.double(), y) for x, y in batches], sgd(), loss)
    rows = recorded(model, batches, sgd(), loss)
    assert_same(rows, wanted, rtol=1e-4, skip="update_ratio")
    (true_step,) = expected(by_hand, batches, sgd(), loss)  # in float32 a small step may change nothing
    assert column(rows[0], "update_ratio") == pytest.approx(true_step["update_ratio"], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
@pytest.mark.parametrize("width", [16, 300])
def test_weights_far_from_one_are_measured_right(scale: float, width: int) -> None:
    """weight_norm and update_ratio of weights whose squares leave the range of float32."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(width, width))
    with torch.no_grad():
        model[0].weight.mul_(scale)
        model[0].bias.mul_(scale)
    batches = random_batches(1, 16, width, classes=width, dtype=torch.float32)
    before = flat(model.parameters())
    (row,) = recorded(model, batches, sgd(scale), partial(scaled_mean, 1.0))
    change = flat(model.parameters()) - before
    assert column(row, "weight_norm") == pytest.approx([before.pow(2).sum().sqrt().item()], rel=1e-4)
    assert column(row, "update_ratio") == pytest.approx([ratio(change, before)], rel=1e-4)


def test_update_ratio_adds_nothing_up() -> None:
    """Recorded now and then, it is the change of that one step, not of all steps since."""
    model = network(nn.Tanh)
    batches = random_batches(11, 16, FEATURES)
    wanted = expected(model, batches, adam())
    rows = recorded(model, batches, adam(), every=5)
    assert [row.step for row in rows] == [0, 5, 10]
    for row in rows:
        assert column(row, "update_ratio") == pytest.approx(wanted[row.step]["update_ratio"], rel=1e-6)
        assert column(row, "weight_norm") == pytest.approx(wanted[row.step]["weight_norm"], rel=1e-6)


def test_validation_between_steps_is_not_mixed_into_the_signals() -> None:
    """A forward pass in evaluation mode between two watched steps leaves the numbers alone."""
    model = network(nn.ReLU)
    batches = random_batches(3, 16, FEATURES)
    wanted = expected(model, batches, sgd())
    memory = Memory()
    recorder = Recorder(model, lambda _: True, [memory])
    x, y = random_batches(1, 50, FEATURES)[0]

    def validate(step: int) -> dict[str, float]:
        return evaluate(model, nn.functional.cross_entropy, {}, x * (step + 2), y)

    optimizer = sgd()(model.parameters())
    fit(
        model,
        nn.functional.cross_entropy,
        optimizer,
        iter(batches),
        range(3),
        recorder=recorder,
        evaluate=validate,
        evaluate_after=[0, 1, 2],
    )
    recorder.close()
    assert_same(memory.kept, wanted, rtol=1e-6)

"""What is looked at twice: against formulas, plain loops and a singular value decomposition in float64."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.build.activations import Sign, SoftmaxNotes, Step, StepStraightThrough
from dlexp.record import look as looking
from dlexp.record.layers import Listener
from dlexp.record.look import LOOKS, Look, differences, effective_rank, jacobian_factors, pass_through, rows

QUIET = ("device=cpu", "threads=1", "record.tensorboard=false")


def inputs(samples: int = 32, features: int = 6) -> Tensor:
    return torch.randn(samples, features, generator=torch.Generator().manual_seed(0))


def behind(model: nn.Module, x: Tensor | None = None) -> list[Any]:
    """The mean slope behind each layer of a model."""
    return pass_through(model, Listener(model), inputs() if x is None else x)[0]


# By hand: the derivative of each activation, in float64.
DERIVATIVES = [
    (nn.Sigmoid(), lambda z: z.sigmoid() * (1 - z.sigmoid())),
    (nn.Tanh(), lambda z: 1 - z.tanh() ** 2),
    (nn.ReLU(), lambda z: (z > 0).double()),
    (nn.ReLU(inplace=True), lambda z: (z > 0).double()),
    (nn.LeakyReLU(0.1), lambda z: torch.where(z > 0, 1.0, 0.1).double()),
    (nn.ELU(2.0), lambda z: torch.where(z > 0, 1.0, 2 * z.exp())),
    (nn.Softsign(), lambda z: (1 + z.abs()) ** -2),
    (nn.Softplus(), lambda z: z.sigmoid()),
    (nn.SiLU(), lambda z: z.sigmoid() * (1 + z * (1 - z.sigmoid()))),
    (nn.PReLU(init=0.3), lambda z: torch.where(z > 0, 1.0, 0.3).double()),
    (nn.Identity(), torch.ones_like),
    (Step(), torch.zeros_like),
    (Sign(), torch.zeros_like),
    (StepStraightThrough(), lambda z: (z.abs() < 1).double()),  # what backward takes for a slope
]


@pytest.mark.parametrize(("activation", "derivative"), DERIVATIVES)
def test_the_slope_is_the_mean_derivative(activation: nn.Module, derivative: Any) -> None:
    """At z, over samples and units, of every layer but the last, which has no activation."""
    model = nn.Sequential(nn.Linear(6, 7), activation, nn.Linear(7, 3))
    twin = copy.deepcopy(model).double()
    z = twin[0](inputs().double())
    assert behind(model) == [pytest.approx(derivative(z).mean().item(), rel=1e-5), looking.NO_ACTIVATION]


def test_a_sigmoid_at_zero_has_slope_a_quarter() -> None:
    """Exactly."""
    model = nn.Sequential(nn.Linear(6, 7), nn.Sigmoid())
    for p in model.parameters():
        nn.init.zeros_(p)
    assert behind(model) == [0.25]


def test_the_slope_is_taken_behind_a_normalization() -> None:
    """Where the activation is: at what batch norm makes of z, with the statistics of the samples."""
    model = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    z = model[0](inputs()).double()
    z = (z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + 1e-5).sqrt()
    assert behind(model)[0] == pytest.approx((1 - z.tanh() ** 2).mean().item(), rel=1e-5)


def test_of_two_activations_in_a_row_the_last_one_counts() -> None:
    """As for what else is recorded: the slope at what goes into it."""
    model = nn.Sequential(nn.Linear(6, 7), nn.LeakyReLU(0.1), nn.Tanh())
    z = model[:2](inputs())
    assert behind(model) == [pytest.approx((1 - z.tanh() ** 2).mean().item(), rel=1e-5)]


class Shared(nn.Module):
    """One activation behind two layers, in place, and once more behind their sum; dropout in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.bend, self.drop = nn.LeakyReLU(0.1, inplace=True), nn.Dropout(0.5, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.drop(self.bend(self.first(x)))
        b = self.bend(self.second(x) - 1)
        b = self.bend(self.second(x))
        return self.third(self.bend(a + b + 5))


def test_an_activation_that_several_layers_share() -> None:
    """Each layer has the slope at its own z; a run on something else belongs to none."""
    model = Shared()
    x = inputs()

    def mean(z: Tensor) -> Any:
        return pytest.approx(torch.where(z > 0, 1.0, 0.1).mean().item())

    first, second, third = behind(model)
    assert (first, third) == (mean(model.first(x)), looking.NO_ACTIVATION)
    assert second == mean(model.second(x))


def test_units_that_compete_have_no_slope_of_their_own() -> None:
    """A softmax has a matrix instead of a slope."""
    why = "the activation does not take each unit by itself"
    for activation in (nn.Softmax(dim=-1), SoftmaxNotes()):
        assert behind(nn.Sequential(nn.Linear(6, 7), activation)) == [why]


class Unused(nn.Module):
    """A layer that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs, self.rests = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.runs(x)


def test_a_layer_that_does_not_run_has_no_slope() -> None:
    """Nor does one without activation; the reasons differ."""
    assert behind(Unused()) == [looking.NO_ACTIVATION, "the layer did not run, or returned no tensor"]


def test_rows_by_hand() -> None:
    """(3, 4) twice, and 0: the largest distance is that of the largest norm, and one in three is a copy."""
    assert differences(torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]]).double()) == (1.0, 2 / 3)
    assert differences(torch.zeros(4, 3).double()) == (0.0, 0.25)
    assert differences(torch.full((64, 9), 0.05).double()) == (0.0, 1 / 64)
    assert differences(torch.ones(1, 3).double()) == ("a single row", "a single row")


def test_of_many_rows_some_are_compared_evenly_chosen() -> None:
    """All alike, all unlike, and a layer one half of whose units are copies of one."""
    assert differences(torch.full((2400, 9), 0.05).double()) == (0.0, 1 / 512)
    unlike = torch.eye(600).double()
    assert differences(unlike) == (pytest.approx(2**0.5), 1.0)
    half = torch.cat([unlike, torch.ones(600, 600).double()])
    assert differences(half)[1] == pytest.approx((256 + 1) / 512)


@pytest.mark.parametrize(("apart", "distinct"), [(0.9e-4, 1 / 16), (1.1e-4, 1.0)])
def test_rows_as_near_as_a_ten_thousandth_are_equal(apart: float, distinct: float) -> None:
    """Here cdist's matrix product, in float32, sees nothing but rounding."""
    whole = torch.zeros(16, 17, dtype=torch.float64)
    whole[:, 0] = 1.0
    whole[:, 1:] = torch.eye(16) * apart / math.sqrt(2)  # each row so far from each other one
    found = differences(whole.float().double())
    assert found == (pytest.approx(apart, rel=1e-4), distinct)


def test_rows_against_plain_loops() -> None:
    """Weight and bias together; some rows are copies."""
    layer = nn.Linear(5, 12)
    with torch.no_grad():
        for a, b in ((3, 0), (7, 0), (8, 2)):
            layer.weight[a], layer.bias[a] = layer.weight[b], layer.bias[b]
        layer.bias[8] += 1  # not a copy any more
    whole = [[*w, b] for w, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]
    norm = max(math.hypot(*row) for row in whole)
    far = max(math.dist(a, b) for a, b in itertools.combinations(whole, 2))
    found = rows(list(layer.parameters()))
    assert found["row_difference"] == pytest.approx(far / norm, rel=1e-12)
    assert found["distinct_rows"] == pytest.approx(10 / 12)
    assert list(found) == list(LOOKS[1:4])


def test_kernels_gates_and_tokens_are_rows() -> None:
    """One that differs from the rest is found in the dimension where units are."""
    for module in (nn.Conv2d(2, 5, 3), nn.ConvTranspose2d(2, 5, 3), nn.Embedding(5, 3), nn.RNNCell(4, 5)):
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(0.5)
            weight = next(p for p in module.parameters() if p.dim() > 1)
            (weight[:, 2] if isinstance(module, nn.ConvTranspose2d) else weight[2]).add_(1.0)
        found = rows(list(module.parameters()), like=module)
        assert found["distinct_rows"] == pytest.approx(2 / 5), module
        assert isinstance(found["effective_rank"], float)


def test_weights_that_cannot_be_compared_say_why() -> None:
    """None at all, of different sizes, not numbers, zeros."""
    names = LOOKS[1:4]
    assert rows([]) == rows([torch.zeros(3)]) == dict.fromkeys(names, "no weights")
    uneven = rows([torch.zeros(3, 2), torch.zeros(4, 2)])
    assert set(uneven.values()) == {"weight matrices with different numbers of rows"}
    assert set(rows([torch.full((3, 2), math.nan)]).values()) == {"weights that are not finite"}
    assert rows([torch.zeros(3, 2)])["effective_rank"] == "the weights are all 0"


def test_the_effective_rank_by_hand() -> None:
    """Singular values 3 and 1 have shares 3/4 and 1/4; equal ones count each, zeros not at all."""
    by_hand = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0])).double()) == pytest.approx(by_hand)
    assert effective_rank(7 * torch.eye(5).double()) == pytest.approx(5)
    assert effective_rank(torch.full((64, 30), 0.05).double()) == pytest.approx(1, abs=1e-9)
    assert effective_rank(torch.empty(513, 513)) == "more than 512 rows and columns"


@pytest.mark.parametrize("shape", [(20, 7), (7, 20), (9, 9)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_effective_rank_against_a_singular_value_decomposition(
    shape: tuple[int, int], scale: float
) -> None:
    """Tall, wide, square; tiny and huge."""
    matrix = scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(matrix).tolist()
    shares = [x / sum(values) for x in values]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(matrix) == pytest.approx(expected, rel=1e-9)


def test_jacobian_factors_by_hand() -> None:
    """8 of 2 is 4; what is not known has a reason."""
    no_delta, zero = "no delta_rms of this layer or of the next one", "delta_rms of the next layer is 0"
    found = jacobian_factors([8.0, 2.0, 0.0, "no gradient", 1.0])
    assert found == [4.0, zero, no_delta, no_delta, "the last layer"]
    assert jacobian_factors([]) == [] and jacobian_factors([1.0]) == ["the last layer"]


def noisy() -> nn.Sequential:
    """A network that draws random numbers and keeps running statistics."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), nn.Tanh()
    )


def test_both_ends_are_looked_at_and_nothing_changes() -> None:
    """The start is that of the first moment; weights, statistics, gradients, hooks and draws stay."""
    model, x = noisy(), inputs()
    at_start = copy.deepcopy(model)
    look = Look(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    model[4].eval()  # a part may be in another mode than the rest
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    look(x)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert model.training and not model[4].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for found, network in ((look.first, at_start), (look.last, model)):
        assert found is not None
        expected = rows(list(network[0].parameters()))
        assert {name: found[0][name] for name in expected} == expected
        z = copy.deepcopy(network[:2])(x)
        assert found[0]["slope_mean"] == pytest.approx((z > 0).float().mean().item())
        assert 0 < found[1]["slope_mean"] < 1
    assert look.first != look.last


def test_a_look_that_fails_leaves_the_weights_that_were_left() -> None:
    """Not those of the start."""
    model = nn.Sequential(nn.Linear(6, 2))
    look = Look(model)
    nn.init.ones_(model[0].weight)
    with pytest.raises(RuntimeError):
        look(torch.zeros(3, 5))
    assert bool((model[0].weight == 1).all()) and not model[0]._forward_hooks


def test_a_run_with_looks_ends_with_the_same_weights(tmp_path: Path) -> None:
    """To the last bit, with dropout and batch norm."""
    words = ["normalization=batch", "dropout=standard", "model.width=16", "train.epochs=2", *QUIET]
    words += ["train.keep_weights=true", f"outputs={tmp_path}"]
    on, off = (dlexp.run([*words, f"record.every={every}"], quiet=True) for every in ("auto", "never"))
    one, other = (torch.load(run.folder / "weights.pt") for run in (on, off))
    assert all(torch.equal(t, other[name]) for name, t in one.items())
    assert on.summary["metrics"] == off.summary["metrics"]
    assert off.summary["layers"][0]["first"] is None


def test_without_recording_nothing_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the start copied."""
    monkeypatch.setattr("dlexp.runner.Look", None)
    summary = dlexp.run(
        ["record=off", "train.max_steps=2", f"outputs={tmp_path}", *QUIET], quiet=True
    ).summary
    assert summary["status"] == "finished" and summary["layers"][0]["reasons"] == {"first": {}, "last": {}}


def test_a_run_has_them_in_its_layers(tmp_path: Path) -> None:
    """In the summary beside the quantities and in the table; units that start equal are seen."""
    words = ["initializer=constant", "activation=sigmoid", "model.depth=2", "model.width=8", "train.epochs=1"]
    run = dlexp.run([*words, f"outputs={tmp_path}", *QUIET], quiet=True)
    hidden, last = run.summary["layers"][0], run.summary["layers"][-1]
    assert run.summary["looks"] == list(LOOKS)
    assert hidden["first"]["distinct_rows"] == 1 / 8 and hidden["first"]["row_difference"] == 0.0
    assert hidden["first"]["effective_rank"] == pytest.approx(1)
    assert 0 < hidden["first"]["slope_mean"] <= 0.25
    deltas = [layer["last"]["delta_rms"] for layer in run.summary["layers"]]
    assert hidden["last"]["jacobian_factor"] == pytest.approx(deltas[0] / deltas[1])
    assert last["first"]["slope_mean"] is last["last"]["jacobian_factor"] is None
    assert last["reasons"]["last"]["jacobian_factor"] == "the last layer"
    for name, when in itertools.product(LOOKS, ("first", "last")):
        for layer in run.summary["layers"]:
            value = run.layers.loc[layer["name"], (name, when)]
            assert value == layer[when][name] or (math.isnan(value) and layer[when][name] is None)


def test_a_sum_in_a_residual_network_has_no_weights(tmp_path: Path) -> None:
    """Its row says so; its factor is there only where nothing leads past the next row."""
    words = ["model=residual_mlp", "model.depth=2", "model.width=8", "train.max_steps=2"]
    run = dlexp.run([*words, f"outputs={tmp_path}", *QUIET], quiet=True)
    layers = run.summary["layers"]
    first, second = (layer for layer in layers if layer["kind"] == "Stream")
    assert first["first"]["effective_rank"] is None
    assert first["reasons"]["first"]["distinct_rows"] == "no weights"
    assert first["reasons"]["first"]["jacobian_factor"] == looking.NOT_FROM_NEXT
    deltas = [layer["first"]["delta_rms"] for layer in layers]
    assert second["first"]["jacobian_factor"] == pytest.approx(deltas[-2] / deltas[-1])


def test_a_run_that_diverged_is_looked_at(tmp_path: Path) -> None:
    """Its start says why; of weights that are not finite nothing is said."""
    words = ["initializer=normal", "optimizer.lr=1e30", "train.max_steps=9"]
    run = dlexp.run([*words, f"outputs={tmp_path}", *QUIET], quiet=True)
    layer = run.summary["layers"][0]
    assert run.summary["status"] == "diverged"
    assert layer["first"]["effective_rank"] > 30 and 0 < layer["first"]["slope_mean"] < 1
    assert run.summary["gaps"] is None and run.summary["timing"]["predict_seconds_per_sample"] is None


def test_a_run_that_broke_off_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a look after Ctrl-C; what was measured is there."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlexp.runner._look_back", stop)
    with pytest.raises(KeyboardInterrupt):
        dlexp.run(["train.max_steps=2", f"outputs={tmp_path}", *QUIET], quiet=True)
    (folder,) = (tmp_path / "mlp_digits").iterdir()
    layer = dlexp.load(folder).summary["layers"][0]
    assert layer["reasons"]["last"]["slope_mean"] == looking.NOT_REACHED
    assert layer["reasons"]["last"]["jacobian_factor"] == looking.NOT_REACHED
    assert layer["last"]["slope_mean"] is None and layer["last"]["delta_rms"] > 0


def test_dead_units_by_hand() -> None:
    """One unit of four is alive, one held down, two above 0 for less than a hundredth of the samples."""
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.5, -1.0, -198.5]))
    found = pass_through(model, Listener(model), torch.arange(200.0).unsqueeze(1))
    # 0 is above 0 for all samples but one, 1 for x = 0 alone, 3 for x = 199 alone: one of 200 is too few
    assert found.dead == [0.75, looking.NO_ACTIVATION]
    assert found.activations == ["ReLU", None]


def test_a_channel_is_dead_if_it_is_so_at_all_places() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0] = 1.0
        model[0].bias.copy_(torch.tensor([0.0, -1.0]))
    pictures = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert pass_through(model, Listener(model), pictures).dead[0] == 0.5


def test_displacement_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    look = Look(model)
    start = [p.detach().clone() for p in model[0].parameters()]
    with torch.no_grad():
        model[0].weight += 1.0
        model[2].weight.mul_(1.0)
    look(inputs(8, 2))
    norm = math.sqrt(sum(t.square().sum().item() for t in start))
    assert look.last is not None and look.first is not None
    assert look.last[0]["displacement"] == pytest.approx(2 / norm, rel=1e-6)  # four entries by 1
    assert look.last[1]["displacement"] == 0.0
    assert look.first[0]["displacement"] == "known at the end"

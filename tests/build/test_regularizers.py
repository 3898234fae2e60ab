"""What holds weights back: the gradients, zeros and norms that it leads to, against the formulas."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dlexp
from dlexp.build.regularizers import L1, L2, MaxNorm, ProximalL1, WeightNoise, weights
from dlexp.train.step import Regularizer, backpropagate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()


BATCH = (torch.linspace(-1, 2, 40, dtype=torch.float64).view(10, 4).sin(), torch.arange(10) % 3)


def gradients(regularizer: Regularizer | None, model: nn.Module) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    backpropagate(model, functional.cross_entropy, optimizer, BATCH, regularizer)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_weights_are_the_matrices_that_learn() -> None:
    """No bias, no scale of a normalization, nothing frozen; also those of recurrent and conv layers."""
    model = nn.ModuleList(
        [network(), nn.GRU(3, 2), nn.Conv2d(1, 2, 3), nn.Linear(2, 2).requires_grad_(False)]
    )
    names = {id(p): name for name, p in model.named_parameters()}
    found = [names[id(p)] for p in weights(model)]
    assert found == ["0.0.weight", "0.3.weight", "1.weight_ih_l0", "1.weight_hh_l0", "2.weight"]


@pytest.mark.parametrize("biases", [False, True])
def test_l2_adds_strength_times_w(biases: bool) -> None:
    """d/dw strength / 2 * w^2 = strength * w, for matrices or for everything."""
    model, plain = network(), gradients(None, network())
    for p, found, without in zip(model.parameters(), gradients(L2(0.3, biases), model), plain, strict=True):
        held = biases or p.dim() >= 2
        torch.testing.assert_close(found, without + 0.3 * p.detach() * held, rtol=1e-12, atol=1e-14)


def test_l1_adds_strength_times_the_sign() -> None:
    """And nothing where a weight is exactly 0."""
    model, other = network(), network()
    for net in (model, other):
        with torch.no_grad():
            net[0].weight[:2] = 0
    for p, found, without in zip(
        model.parameters(), gradients(L1(0.3), model), gradients(None, other), strict=True
    ):
        held = p.dim() >= 2
        torch.testing.assert_close(found, without + 0.3 * p.detach().sign() * held, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("regularizer", [L1(0.5), L2(0.5)])
def test_the_loss_on_record_is_without_the_penalty(regularizer: Regularizer) -> None:
    """So that losses can be compared between runs."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss, _ = backpropagate(model, functional.cross_entropy, optimizer, BATCH, regularizer)
    assert loss.item() == functional.cross_entropy(model(BATCH[0]), BATCH[1]).item()


def test_the_size_of_a_penalty_by_hand() -> None:
    """W = [[1, -2], [0, 3]]: squares 14, absolute values 6."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        model.bias.fill_(1.0)
    regularizers: list[Regularizer] = [L2(0.1), L2(0.1, biases=True), L1(0.1)]
    sizes = [penalty.item() for r in regularizers if (penalty := r.penalty(model)) is not None]
    assert sizes == pytest.approx([0.7, 0.8, 0.6])


@pytest.mark.parametrize("regularizer", [L1(1.0), L2(1.0)])
def test_a_network_without_weights_has_no_penalty(regularizer: Regularizer) -> None:
    """Nothing is added rather than a sum of nothing."""
    assert regularizer.penalty(nn.Identity()) is None


def test_proximal_l1_by_hand() -> None:
    """Soft threshold by lr * strength = 0.1: what is smaller becomes exactly 0; the bias stays."""
    model = nn.Linear(5, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.3, 0.05, -0.1, 0.0]]))
        model.bias.fill_(0.05)
    ProximalL1(0.2).after_step(model, torch.optim.SGD(model.parameters(), lr=0.5))
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[0.2, -0.2, 0.0, 0.0, 0.0]]))
    assert (model.weight[0, 2:] == 0).all() and model.bias.item() == pytest.approx(0.05)


def test_proximal_l1_goes_with_a_learning_rate_that_moves() -> None:
    """A step at a tenth of the first rate moves the weights by a tenth."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.1
    nn.init.constant_(model.weight, 2.0)
    ProximalL1(strength=3.0).after_step(model, optimizer)
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 3.0)


def test_proximal_l1_solves_the_lasso() -> None:
    """1/2 |w - c|^2 + strength |w| is least at the soft threshold of c; the subgradient only nears it."""
    c, strength = torch.tensor([[2.0, -1.5, 0.4, -0.3, 0.0]]), 0.5
    best = torch.tensor([[1.5, -1.0, 0.0, 0.0, 0.0]])
    ends = []
    for regularizer in (ProximalL1(strength), L1(strength)):
        model = nn.Linear(5, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(100):
            optimizer.zero_grad()
            penalty = regularizer.penalty(model)
            ((model.weight - c).square().sum() / 2 + (0 if penalty is None else penalty)).backward()
            optimizer.step()
            if isinstance(regularizer, ProximalL1):
                regularizer.after_step(model, optimizer)
        ends.append(model.weight.detach())
    torch.testing.assert_close(ends[0], best, rtol=0, atol=1e-6)
    assert (ends[0] == 0).tolist() == (best == 0).tolist()
    assert (ends[1][:, 2:4] != 0).all() and (ends[1] - best).abs().max() < 0.3


def test_max_norm_by_hand() -> None:
    """Rows of norm 5 and 0.5 under 2.5: the first is halved, the second and the bias stay."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
        model.bias.fill_(9.0)
    MaxNorm(2.5).after_step(model, torch.optim.SGD(model.parameters(), lr=1.0))
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[1.5, 2.0], [0.3, 0.4]]))
    assert model.bias.tolist() == [9.0, 9.0]


def test_max_norm_of_a_convolution_is_that_of_a_channel() -> None:
    """All weights that lead to an output channel together."""
    model = nn.Conv2d(3, 4, 3)
    nn.init.normal_(model.weight, std=2.0)
    MaxNorm(1.5).after_step(model, torch.optim.SGD(model.parameters(), lr=1.0))
    torch.testing.assert_close(model.weight.detach().flatten(1).norm(dim=1), torch.full((4,), 1.5))


def test_weight_noise_is_seen_by_forward_and_backward() -> None:
    """The gradients are those of a network that has these noisy weights for good."""
    model, shaken = network(), network()
    noise = WeightNoise(0.5)
    torch.manual_seed(3)
    found = gradients(noise, model)
    torch.manual_seed(3)
    with torch.no_grad():
        for w in weights(shaken):
            w += 0.5 * torch.randn_like(w)
    for ours, theirs in zip(found, gradients(None, shaken), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found[0], gradients(None, network())[0], rtol=0.1)


def test_weight_noise_is_gone_afterwards_to_the_last_bit() -> None:
    """Also when forward breaks."""
    model = network().float()
    before = [p.detach().clone() for p in model.parameters()]
    noise: AbstractContextManager[object] = WeightNoise(1.0).perturbed(model)
    with noise:
        assert not torch.equal(model[0].weight, before[0])
        assert torch.equal(model[0].bias, before[1])
    with pytest.raises(ZeroDivisionError), WeightNoise(1.0).perturbed(model):
        _ = 1 / 0
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_weight_noise_has_the_spread_it_says() -> None:
    """Standard deviation 0.2, mean 0: within 5 standard errors of 40,000 draws."""
    model = nn.Linear(200, 200)
    before = model.weight.detach().clone()
    with WeightNoise(0.2).perturbed(model):
        noise = model.weight.detach() - before
    assert noise.std().item() == pytest.approx(0.2, abs=5 * 0.2 / 80_000**0.5)
    assert noise.mean().item() == pytest.approx(0.0, abs=5 * 0.2 / 40_000**0.5)


SHORT = ["train.max_steps=40", "model.depth=1", "model.width=16", "record.tensorboard=false"]


def trained(tmp_path: Path, *words: str) -> dict[str, Tensor]:
    """The weights at the end of a run."""
    run = dlexp.run([*SHORT, f"outputs={tmp_path}", "train.keep_weights=true", *words], quiet=True)
    weights: dict[str, Tensor] = torch.load(run.folder / "weights.pt", weights_only=True)
    return weights


def test_a_run_with_proximal_l1_has_exact_zeros_and_one_with_l1_has_not(tmp_path: Path) -> None:
    """In the last layer, whose inputs all change."""
    plain = trained(tmp_path)
    proximal = trained(tmp_path, "regularizer=proximal_l1", "regularizer.strength=0.05")
    penalty = trained(tmp_path, "regularizer=l1", "regularizer.strength=0.05")
    last = [name for name in plain if name.endswith("weight")][-1]
    zeros = [(w[last] == 0).float().mean().item() for w in (plain, proximal, penalty)]
    assert zeros[0] == zeros[2] == 0 and zeros[1] > 0.2


def test_a_run_with_max_norm_keeps_it(tmp_path: Path) -> None:
    """After the last step no unit's weights are longer."""
    found = trained(tmp_path, "regularizer=max_norm", "regularizer.max_norm=0.5")
    norms = torch.cat([w.norm(dim=1) for name, w in found.items() if name.endswith("weight")])
    assert norms.max() == pytest.approx(0.5, rel=1e-5)
    assert norms.min() > 0.3


def test_the_update_on_record_is_with_what_comes_after_the_step(tmp_path: Path) -> None:
    """One huge soft threshold moves every weight to 0: the update is as long as the weights were."""
    words = ["regularizer=proximal_l1", "regularizer.strength=1000", "train.max_steps=1", "model.bias=false"]
    run = dlexp.run([*SHORT, *words, f"outputs={tmp_path}"], quiet=True)
    assert run.records["update_ratio"].tolist() == pytest.approx([1.0] * len(run.layers))


@pytest.mark.parametrize("choice", ["l2", "l1", "proximal_l1", "max_norm", "weight_noise"])
def test_watching_changes_nothing(choice: str, tmp_path: Path) -> None:
    """The same end with and without recording."""
    ends = [
        dlexp.run([*SHORT, f"regularizer={choice}", f"record={record}", f"outputs={tmp_path}"], quiet=True)
        for record in ("every_step", "off")
    ]
    assert ends[0].summary["metrics"]["loss/test"] == ends[1].summary["metrics"]["loss/test"]

"""One backward through the GAN leaves in each half what its own loss alone would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from record.second_opinion import SEED, recorded, sgd
from torch import Tensor, nn
from torch.nn.functional import softplus

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.gan import GAN
from dlexp.build.losses import Minimax, NonSaturating
from dlexp.build.mlp import mlp
from dlexp.compose import compose
from dlexp.errors import UserError
from dlexp.report.terminal import Terminal

B, Z, D = 16, 3, 5


def small() -> GAN:
    torch.manual_seed(0)
    halves = [
        mlp((i,), o, depth=2, width=7, bias=True, activation=nn.Tanh).double() for i, o in ((Z, D), (D, 1))
    ]
    return GAN(*halves, latent=Z)


def real() -> Tensor:
    return torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("loss", "of_generator"),
    [(NonSaturating(), lambda z: softplus(-z).mean()), (Minimax(), lambda z: -softplus(z).mean())],
)
def test_gradients_are_those_of_two_separate_losses(
    loss: nn.Module, of_generator: Callable[[Tensor], Tensor]
) -> None:
    """Each half learns from its own loss; torch.autograd.grad takes them one by one."""
    model = small()
    torch.manual_seed(2)
    outputs = model(real())
    loss(outputs, real()).backward()

    torch.manual_seed(2)
    fake = model.generator(torch.randn(B, Z, dtype=torch.float64))
    d_real, d_fake = model.discriminator(real()), model.discriminator(fake)
    own = softplus(-d_real).mean() + softplus(d_fake).mean()
    for half, its_loss in ((model.discriminator, own), (model.generator, of_generator(d_fake))):
        wanted = torch.autograd.grad(its_loss, list(half.parameters()), retain_graph=True)
        assert all(float(w.abs().max()) > 0 for w in wanted)
        for p, w in zip(half.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, w)
    torch.testing.assert_close(outputs, torch.cat([d_real, d_fake, d_fake, fake], dim=1))


def test_every_parameter_learns_after_a_pass() -> None:
    """The discriminator is held only while it judges for the generator, also if that fails."""
    model = small()
    model(real())
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(RuntimeError):
        model(torch.zeros(B, D + 1, dtype=torch.float64))
    assert all(p.requires_grad for p in model.parameters())


def test_noise_is_new_in_training_and_the_same_in_evaluation() -> None:
    """And evaluation leaves the generator of training alone."""
    model = small()
    torch.manual_seed(0)
    first, second = model(real()), model(real())
    assert not torch.equal(first[:, 3:], second[:, 3:])
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(model(real()), model(real()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_records_three_passes_of_the_discriminator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real, fake, and fake for the generator; the generator runs once."""
    words = ["model=gan", "data=ring", "model.depth=1", "train.max_steps=3", f"outputs={tmp_path}"]
    run = dlexp.run(words, quiet=True)
    assert run.summary["status"] == "finished"
    layers = run.summary["layers"]
    passes = [len(layer["over_time"]["last"].get("delta_rms", [0])) for layer in layers]
    assert passes == [1, 1, 3, 3]
    assert not any(layer["is_cell"] for layer in layers)  # they are no time steps
    capsys.readouterr()
    Terminal().ending(run.summary, "x", "x")
    printed = capsys.readouterr().out
    assert "03_linear  delta_rms in its 3 runs  " in printed and "over time" not in printed


def test_the_passes_of_the_discriminator_come_in_their_order() -> None:
    """Real, fake for itself, fake for the generator: dL/dz of each, by autograd from its own loss."""
    model = small()
    (row,) = recorded(model, [(real(), real())], sgd(0.0), NonSaturating())
    torch.manual_seed(SEED)
    fake = model.generator(torch.randn(B, Z, dtype=torch.float64)).detach()
    wanted = []
    for sample, sign in ((real(), -1), (fake, 1), (fake, -1)):  # softplus(-z), softplus(z), softplus(-z)
        logit = model.discriminator(sample).detach().requires_grad_()
        softplus(sign * logit).mean().backward()
        assert logit.grad is not None
        wanted.append(logit.grad.square().mean().sqrt().item())
    assert row.over_time["delta_rms", 5] == pytest.approx(wanted, rel=1e-9)


def test_other_tasks_are_refused() -> None:
    text = "model=gan: the data asks for classification; allowed: task=adversarial"
    with pytest.raises(UserError, match=f"^{text}$"):
        assemble(compose(["model=gan"]), torch.device("cpu"))

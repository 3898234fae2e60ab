"""The denoising autoencoder sees noise, and the same noise whenever it is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.autoencoder import GaussianNoise
from dlexp.compose import compose
from dlexp.errors import UserError


def test_noise_has_the_deviation_asked_for_in_both_modes() -> None:
    """40,000 draws: the standard error of a deviation is std / sqrt(80,000); five of them."""
    torch.manual_seed(0)
    noise, x = GaussianNoise(0.3), torch.full((200, 200), 7.0)
    for training in (True, False):
        added = noise.train(training)(x) - x
        assert added.std().item() == pytest.approx(0.3, abs=5 * 0.3 / 80_000**0.5)
        assert abs(added.mean().item()) < 5 * 0.3 / 200


def test_noise_is_new_in_training_and_the_same_in_evaluation() -> None:
    """And evaluation leaves PyTorch's own generator alone."""
    noise, x = GaussianNoise(1.0), torch.zeros(3, 4)
    assert not torch.equal(noise(x), noise(x))
    noise.eval()
    before = torch.get_rng_state()
    assert torch.equal(noise(x), noise(x))
    assert torch.equal(before, torch.get_rng_state())


def test_all_passes_through_the_code() -> None:
    """Encoder and decoder are MLPs with the code between them, and the rank of what leaves is that of it."""
    torch.manual_seed(0)
    words = ["model=denoising_autoencoder", "task=reconstruction", "model.code=3", "activation=identity"]
    model = assemble(compose([*words, "model.noise=0"]), torch.device("cpu")).model
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() > 1]
    assert shapes == [(64, 64), (3, 64), (64, 3), (64, 64)]
    assert isinstance(model, nn.Sequential)
    x = torch.randn(50, 1, 8, 8)
    outputs = model(x)
    assert outputs.shape == (50, 64)
    torch.testing.assert_close(outputs, model[2](model[1](x)))
    sizes = torch.linalg.svdvals(outputs - outputs.mean(dim=0)).tolist()
    assert sizes[2] > 1e-2
    assert sizes[3] < 1e-4


def test_it_takes_noise_away(tmp_path: Path) -> None:
    """Of noise as large as the digits themselves more goes than stays, and than with the mean as answer."""
    words = ["model=denoising_autoencoder", "task=reconstruction", "model.noise=1", "optimizer=adam"]
    run = dlexp.run([*words, "optimizer.lr=0.01", "train.epochs=15", f"outputs={tmp_path}"], quiet=True)
    data = assemble(compose(words), torch.device("cpu")).data
    mean = data.train.targets.mean(dim=0)
    by_mean = (data.test.targets - mean).square().mean().sqrt().item()
    assert run.summary["metrics"]["rmse/test"] < 0.8 * by_mean


def test_other_tasks_are_refused() -> None:
    text = (
        "model=denoising_autoencoder: gives its inputs back; the data asks for classification; allowed:"
        " task=reconstruction"
    )
    with pytest.raises(UserError, match=f"^{text}$"):
        assemble(compose(["model=denoising_autoencoder"]), torch.device("cpu"))

"""Changes to training inputs: by hand, in the train mode only, and refused where they make no sense."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dlexp.build.augmentation import InputNoise, Rotate, Shift, rotated, shifted
from dlexp.errors import UserError

CHOICES = [InputNoise(0.5), Shift(2), Rotate(30.0)]


def pictures(batch: int = 6, height: int = 5, width: int = 7) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, 2, height, width)


@pytest.mark.parametrize("module", CHOICES, ids=lambda m: type(m).__name__)
def test_only_training_inputs_are_changed(module: nn.Module) -> None:
    """In evaluation mode the very same tensor comes back, and no random number is drawn."""
    x = pictures()
    before, state = x.clone(), torch.get_rng_state()
    assert module.eval()(x) is x and torch.equal(state, torch.get_rng_state())
    changed = module.train()(x)
    assert changed.shape == x.shape and changed.dtype == x.dtype and changed.is_contiguous()
    assert not torch.equal(changed, x) and torch.equal(x, before)
    assert not torch.equal(module(x), changed)  # drawn anew


@pytest.mark.parametrize("module", CHOICES, ids=lambda m: type(m).__name__)
def test_the_same_seed_draws_the_same(module: nn.Module) -> None:
    """From PyTorch's default generator, which a run seeds."""
    x, found = pictures(), []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(module.train()(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("module", [InputNoise(0.0), Shift(0), Rotate(0.0)], ids=lambda m: type(m).__name__)
def test_none_of_it_changes_nothing(module: nn.Module) -> None:
    """sigma, pixels and degrees of 0."""
    x = pictures()
    torch.testing.assert_close(module.train()(x), x)


def test_input_noise_has_the_spread_it_says() -> None:
    """Standard deviation 0.3, mean 0: within 5 standard errors of 50,000 draws; any shape."""
    noise = InputNoise(0.3)(torch.ones(500, 100)) - 1
    assert noise.std().item() == pytest.approx(0.3, abs=5 * 0.3 / 100_000**0.5)
    assert noise.mean().item() == pytest.approx(0.0, abs=5 * 0.3 / 50_000**0.5)


def test_shifted_by_hand() -> None:
    """Down by one and left by one; the border that comes in repeats."""
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    found = shifted(x.view(1, 1, 3, 3), torch.tensor([1]), torch.tensor([-1]))
    assert found.view(3, 3).tolist() == [[2.0, 3.0, 3.0], [2.0, 3.0, 3.0], [5.0, 6.0, 6.0]]


def test_each_picture_is_shifted_by_itself() -> None:
    """As PyTorch's roll moves it, away from the borders, in every channel."""
    x, down, right = pictures(), torch.tensor([0, 1, -1, 2, -2, 0]), torch.tensor([0, 1, 2, -1, -2, 2])
    found = shifted(x, down, right)
    for i, (dy, dx) in enumerate(zip(down.tolist(), right.tolist(), strict=True)):
        rolled = x[i].roll((dy, dx), dims=(1, 2))
        inside = (slice(None), slice(max(dy, 0), 5 + min(dy, 0)), slice(max(dx, 0), 7 + min(dx, 0)))
        assert torch.equal(found[i][inside], rolled[inside])


def test_all_shifts_occur() -> None:
    """Both directions, from -pixels to pixels, each as often: 5 standard errors of 4,000 draws."""
    x = torch.arange(9.0).repeat(9, 1).view(1, 1, 9, 9).repeat(4000, 1, 1, 1)
    middle = Shift(1)(x)[:, 0, 4, 4] - 4  # -dx
    counts = [(middle == d).sum().item() for d in (-1, 0, 1)]
    assert sum(counts) == 4000
    assert counts == pytest.approx([4000 / 3] * 3, abs=5 * (4000 * 2 / 9) ** 0.5)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_those_of_rot90(quarters: int) -> None:
    """Square pictures, counterclockwise."""
    x = pictures(height=6, width=6)
    found = rotated(x, torch.full((6,), quarters * math.pi / 2))
    torch.testing.assert_close(found, x.rot90(quarters, dims=(2, 3)), rtol=0, atol=1e-5)


def test_a_turned_oblong_keeps_its_proportions() -> None:
    """A turn by 180 degrees flips both ways; one by 90 puts pixels where rot90 does, inside the picture."""
    x = pictures(height=4, width=8)
    half = rotated(x, torch.full((6,), math.pi))
    torch.testing.assert_close(half, x.flip(2, 3), rtol=0, atol=1e-5)
    quarter = rotated(x, torch.full((6,), math.pi / 2))
    square = x[..., 2:6].rot90(1, dims=(2, 3))  # the middle, which stays inside
    torch.testing.assert_close(quarter[..., 2:6], square, rtol=0, atol=1e-5)


def test_angles_lie_between_plus_and_minus_degrees() -> None:
    """A picture whose value is its angle seen from the middle tells how far it was turned."""
    place = torch.arange(33) - 16.0
    ramp = place.view(1, 1, 1, 33).expand(2000, 1, 33, 33).contiguous()  # x
    found = Rotate(20.0)(ramp)
    sine = (found[:, 0, 20, 16] - found[:, 0, 12, 16]) / 8  # x that comes to (0, +-4) is -+4 sin
    angles = torch.rad2deg(torch.asin(sine))
    assert angles.abs().max() < 20.01
    assert angles.min() < -19 and angles.max() > 19
    assert angles.mean().item() == pytest.approx(0.0, abs=5 * 20 / 3**0.5 / 2000**0.5)


@pytest.mark.parametrize("module", [Shift(1), Rotate(10.0)])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_no_picture_is_refused(module: nn.Module, training: bool) -> None:
    """Also in evaluation mode, so that a rehearsal finds it."""
    name = type(module).__name__.lower()
    with pytest.raises(
        UserError, match=rf"^augmentation={name}: takes pictures \(C, H, W\); the data has \(13,\)$"
    ):
        module.train(training)(torch.zeros(4, 13))


def test_noise_on_tokens_is_refused() -> None:
    """They are indices."""
    with pytest.raises(
        UserError, match=r"^augmentation=input_noise: is added to numbers; the inputs are tokens$"
    ):
        InputNoise(0.1).eval()(torch.zeros(4, 5, dtype=torch.int64))

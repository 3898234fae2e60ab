"""Splits are disjoint, seeded and complete; standardization knows the training split only."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.data.dataset import Dataset, Split, split, standardized
from dlexp.errors import UserError

SHARES = {"validation": 0.2, "test": 0.1}
CPU = torch.device("cpu")


def numbered(n: int) -> Split:
    """Sample i holds the number i, and so does its target."""
    return Split(torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1), torch.arange(n))


def ids(parts: list[Split]) -> list[list[int]]:
    """The numbers of the samples of each part."""
    return [part.targets.tolist() for part in parts]


def build(*words: str) -> Dataset:
    """The data set that the words of a command line name."""
    return assemble(compose(words), CPU).data


def test_parts_hold_each_sample_once() -> None:
    """Train, validation and test are disjoint and together the whole set."""
    parts = ids(split(numbered(100), SHARES, seed=0))
    assert [len(part) for part in parts] == [70, 20, 10]
    assert sorted(chain(*parts)) == list(range(100))


def test_inputs_stay_with_their_targets() -> None:
    """Shuffling does not mix up labels."""
    for part in split(numbered(50), {"validation": 0.2, "test": 0.2}, seed=3):
        assert part.inputs.flatten().tolist() == part.targets.tolist()


def test_split_depends_on_its_seed_and_nothing_else() -> None:
    """The same seed gives the same parts whatever PyTorch's own generator did; another gives others."""
    torch.manual_seed(1)
    first = ids(split(numbered(100), SHARES, seed=0))
    torch.manual_seed(2)
    assert ids(split(numbered(100), SHARES, seed=0)) == first
    assert ids(split(numbered(100), SHARES, seed=1)) != first


def test_splitting_draws_no_global_random_numbers() -> None:
    """PyTorch's default generator is left alone."""
    before = torch.get_rng_state()
    split(numbered(100), SHARES, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.7, 0.6], [0.001, 0.1], [0.1, 0.001]])
def test_no_part_is_empty(shares: list[float]) -> None:
    """Shares that leave a part without samples are refused, with the shares in the text."""
    allowed = "less than 1 together" if sum(shares) >= 1 else "0.05 or more"
    named = rf"data.validation={shares[0]:g}, data.test={shares[1]:g}: .*20 samples.*allowed: {allowed}"
    with pytest.raises(UserError, match=named):
        split(numbered(20), dict(zip(SHARES, shares, strict=True)), seed=0)


def test_too_few_samples_for_the_splits() -> None:
    """One for each is the least, and what is advised does for any number."""
    with pytest.raises(
        UserError, match=r"^data: 2 samples; allowed: 3 or more, for train, validation, test$"
    ):
        split(numbered(2), dict(zip(SHARES, (0.3, 0.3), strict=True)), seed=0)
    for n in range(3, 60):
        with pytest.raises(UserError, match="; allowed: ") as caught:
            split(numbered(n), dict(zip(SHARES, (0.0001, 0.0001), strict=True)), seed=0)
        least = float(str(caught.value).partition("; allowed: ")[2].split()[0])
        assert min(map(len, split(numbered(n), dict(zip(SHARES, (least, least), strict=True)), seed=0))) > 0


def test_seed_of_the_run_does_not_change_the_split() -> None:
    """Runs with other seeds meet the same test set; data.split_seed changes it."""
    first, other_seed, other_split = build("seed=0"), build("seed=1"), build("data.split_seed=1")
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(first, name).inputs, getattr(other_seed, name).inputs)
    assert not torch.equal(first.test.targets, other_split.test.targets)


def test_channel_uses_one_mean_for_all_pixels_of_a_channel() -> None:
    """By hand: channel 0 of the training split has mean 3 and variance 5, channel 1 mean 10 and 0."""
    train = torch.tensor([[[[0.0, 2.0]], [[10.0, 10.0]]], [[[4.0, 6.0]], [[10.0, 10.0]]]])  # (2, 2, 1, 2)
    test = torch.tensor([[[[3.0, 8.0]], [[11.0, 9.0]]]])
    targets = torch.zeros(2, dtype=torch.long)
    first, second = standardized([Split(train, targets), Split(test, targets[:1])], "channel")
    root = 5**0.5
    expected = torch.tensor([[-3.0, -1.0], [1.0, 3.0]]) / root
    torch.testing.assert_close(first.inputs[:, 0, 0], expected)
    assert first.inputs[:, 1].eq(0).all()
    torch.testing.assert_close(second.inputs[0, :, 0], torch.tensor([[0.0, 5 / root], [1.0, -1.0]]))


def test_feature_uses_a_mean_for_every_pixel() -> None:
    """By hand: pixel 0 has mean 2 and deviation 2; pixel 1 is constant in training and only centred."""
    train = torch.tensor([[[[0.0, 7.0]]], [[[4.0, 7.0]]]])  # (2, 1, 1, 2)
    test = torch.tensor([[[[6.0, 9.0]]]])
    targets = torch.zeros(2, dtype=torch.long)
    first, second = standardized([Split(train, targets), Split(test, targets[:1])], "feature")
    assert first.inputs.flatten().tolist() == [-1.0, 0.0, 1.0, 0.0]
    assert second.inputs.flatten().tolist() == [2.0, 2.0]
    assert first.inputs.dtype == torch.float32


def test_none_leaves_inputs_as_they_are() -> None:
    """standardize=none changes nothing."""
    part = numbered(5)
    assert torch.equal(standardized([part], "none")[0].inputs, part.inputs)


@pytest.mark.parametrize("how", ["channel", "feature"])
def test_held_out_samples_do_not_enter_the_statistics(how: str) -> None:
    """Other validation and test samples leave the standardized training split as it was."""
    train, far = numbered(10), Split(torch.full((3, 1, 1, 1), 1e6), torch.zeros(3, dtype=torch.long))
    alone = standardized([train], how)[0].inputs
    assert torch.equal(standardized([train, far, far], how)[0].inputs, alone)

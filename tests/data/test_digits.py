"""The default data set is scikit-learn's, value for value; its variants differ from it as they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dlexp.build.assemble import assemble
from dlexp.compose import CONFIGS, compose
from dlexp.data import digits
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

VARIANTS = sorted(path.stem for path in (CONFIGS / "data").glob("digits_*.yaml"))
SHARES = {"validation": 0.15, "test": 0.15, "split_seed": 0}


def load(**options: Any) -> Dataset:
    """A variant with shades as they are."""
    return digits.load(**{"standardize": "none", **SHARES, **options})


def build(*words: str) -> Dataset:
    """The data set that the words of a command line name."""
    return assemble(compose(words), torch.device("cpu")).data


def heap() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_digits_are_those_of_scikit_learn() -> None:
    """Pictures, order and labels are exactly those of sklearn.datasets.load_digits."""
    from sklearn.datasets import load_digits

    ours, theirs = digits.read(), load_digits()
    assert ours.inputs.shape == (1797, 1, 8, 8) and ours.inputs.dtype == torch.float32
    assert ours.targets.dtype == torch.int64
    assert np.array_equal(ours.inputs.squeeze(1).numpy(), theirs.images)
    assert np.array_equal(ours.targets.numpy(), theirs.target)


def test_another_layout_of_scikit_learn_gives_the_same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is not found, scikit-learn itself is asked, with the same result."""
    expected = digits.read()
    monkeypatch.setattr("dlexp.data.digits.Path.is_file", lambda _path: False)
    asked = digits.read()
    assert torch.equal(asked.inputs, expected.inputs) and torch.equal(asked.targets, expected.targets)


def test_shares_are_of_all_samples() -> None:
    """0.15 and 0.15 of 1797 samples are 270 each, the rest is for training."""
    data = digits.load(validation=0.15, test=0.15, split_seed=0, standardize="channel")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1257, 270, 270]
    assert data.outputs == 10 and data.input_shape == (1, 8, 8)


@pytest.mark.parametrize(("how", "pixels"), [("channel", [0, 2, 3]), ("feature", [0])])
def test_standardized_training_digits_have_mean_0_and_deviation_1(how: str, pixels: list[int]) -> None:
    """Per channel or per pixel, and only on the training split exactly so."""
    data = digits.load(validation=0.15, test=0.15, split_seed=0, standardize=how)
    mean = data.train.inputs.double().mean(dim=pixels)
    std = data.train.inputs.double().std(dim=pixels, correction=0)
    assert mean.abs().max() < 1e-6
    varying = std > 0  # the corner pixels are 0 in all training digits
    assert (std[varying] - 1).abs().max() < 1e-6
    assert data.test.inputs.double().mean().abs() > 1e-4


def test_there_are_variants() -> None:
    """The glob finds them."""
    assert len(VARIANTS) >= 8


@pytest.mark.parametrize("word", VARIANTS)
def test_a_variant_depends_on_its_seed_alone(word: str) -> None:
    """The same data.sample_seed gives the same tensors, whatever was drawn before; another gives others."""
    torch.manual_seed(1)
    first = build(f"data={word}", "seed=1")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same, other = digits_of(word, 0), digits_of(word, 1)
    assert torch.equal(torch.get_rng_state(), before), "no global random numbers"
    changed = []
    for name in ("train", "validation", "test"):
        ours, theirs, others = (getattr(data, name) for data in (first, same, other))
        assert torch.equal(ours.inputs, theirs.inputs) and torch.equal(ours.targets, theirs.targets)
        both = ((ours.inputs, others.inputs), (ours.targets, others.targets))
        changed.append(any(a.shape != b.shape or not torch.equal(a, b) for a, b in both))
    # which pictures are left out is drawn only where some are
    assert any(changed) or word == "digits_imbalanced"


def digits_of(word: str, seed: int) -> Dataset:
    """The variant, from the function that its YAML file names and the values there."""
    values = compose([f"data={word}"]).config.data
    return digits.load(**{k: v for k, v in values.items() if k != "_target_"} | {"sample_seed": seed})


def test_shifted_digits_are_the_digits_moved() -> None:
    """Each picture is one of the (2 s + 1)^2 moves of its original, by padding and cutting, and all occur."""
    plain, moved = load(), load(shift=2)
    assert torch.equal(plain.train.targets, moved.train.targets)
    wide = torch.nn.functional.pad(plain.train.inputs, (2, 2, 2, 2))
    moves = torch.stack([wide[:, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)])
    hits = (moves == moved.train.inputs).flatten(2).all(dim=2)  # (25, N)
    assert hits.any(dim=0).all()
    assert (hits.float().mean(dim=1) > 0.01).all()  # 0.04 each


def test_permuted_digits_have_the_same_pixels_in_one_other_order() -> None:
    """Column by column: pixel i of all pictures is pixel order[i] of the originals."""
    plain, mixed = load().test.inputs.flatten(1), load(permute=True).test.inputs.flatten(1)
    assert not torch.equal(plain, mixed)
    assert sorted(map(tuple, plain.T.tolist())) == sorted(map(tuple, mixed.T.tolist()))


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    """Mean 0 and standard deviation 4 within what so many draws allow (five standard errors)."""
    plain, noisy = load().train.inputs, load(noise=4.0).train.inputs
    noise = (noisy - plain).double()
    n = noise.numel()
    assert abs(noise.mean()) < 5 * 4 / math.sqrt(n)
    assert abs(noise.std() - 4) < 5 * 4 / math.sqrt(2 * n)


def test_a_canvas_has_the_whole_digit_at_a_random_place() -> None:
    """Without clutter all ink of each digit is on its canvas, and the corners are drawn evenly."""
    plain, placed = load().train.inputs, load(canvas=16).train.inputs
    assert placed.shape == (len(plain), 1, 16, 16)
    assert torch.equal(plain.flatten(1).sum(dim=1), placed.flatten(1).sum(dim=1))
    spots = placed.unfold(2, 8, 1).unfold(3, 8, 1)[:, 0]  # (N, 9, 9, 8, 8)
    hits = (spots == plain[:, :, None]).flatten(3).all(dim=3)  # (N, 9, 9)
    assert hits.flatten(1).any(dim=1).all()
    rows = hits.any(dim=2).float().mean(dim=0)
    assert rows.shape == (9,) and (rows > 0.05).all()  # 1 / 9 each


def test_clutter_adds_ink_and_takes_none() -> None:
    """Drawn with the same seed, the digit stands where it stood, and pieces of digits are around it."""
    clean, full = load(canvas=20, clutter=0).train.inputs, load(canvas=20, clutter=4).train.inputs
    assert (full >= clean).all() and (full > clean).flatten(1).any(dim=1).float().mean() > 0.99
    most = (full > clean).flatten(1).sum(dim=1).max()
    assert most <= 4 * 4 * 4  # four pieces of 4x4


def test_random_wrong_labels() -> None:
    """As many as asked, each another class, all nine of them alike; the pictures stay."""
    targets = digits.read().targets
    wrong = digits.mislabelled(targets, 0.5, "random", heap())
    moved = (wrong - targets) % 10
    assert (moved != 0).sum() == round(0.5 * 1797)
    counts = torch.bincount(moved, minlength=10)[1:]
    assert (counts - counts.sum() / 9).abs().max() < 5 * math.sqrt(counts.sum() / 9)


def test_systematic_wrong_labels_are_whole_classes() -> None:
    """0.2 is two of ten classes, each k called k + 1 in all samples."""
    targets = digits.read().targets
    wrong = digits.mislabelled(targets, 0.2, "systematic", heap())
    renamed = targets[wrong != targets].unique()
    assert len(renamed) == 2
    for k in range(10):
        assert wrong[targets == k].unique().tolist() == [(k + 1) % 10 if k in renamed else k]


def test_held_out_labels_are_right() -> None:
    """Wrong labels are learned from (train, train_dev), never judged by (validation, test)."""
    plain, wrong = load(train_dev=0.1), load(train_dev=0.1, label_noise=0.3)
    for name in ("validation", "test"):
        assert torch.equal(getattr(plain, name).targets, getattr(wrong, name).targets)
    for name in ("train", "train_dev"):
        share = (getattr(plain, name).targets != getattr(wrong, name).targets).float().mean()
        assert 0.2 < share < 0.4
        assert torch.equal(getattr(plain, name).inputs, getattr(wrong, name).inputs)


def test_one_digit_against_the_rest() -> None:
    """Targets (N, 1) say where the digit is; all pictures stay."""
    plain, nine = load(), load(digit=9)
    assert nine.task == "binary" and nine.outputs == 1
    assert torch.equal(nine.train.targets, (plain.train.targets == 9).float().unsqueeze(1))
    assert torch.equal(nine.train.inputs, plain.train.inputs)


@pytest.mark.parametrize(("share", "nines"), [(0.01, 16), (0.05, 85)])
def test_rare_positives(share: float, nines: int) -> None:
    """So many nines stay beside the 1617 other digits: 1617 / 99 = 16.3, 1617 / 19 = 85.1."""
    data = load(digit=9, positives=share)
    parts = [data.train, data.validation, data.test]
    assert sum(int(part.targets.sum()) for part in parts) == nines
    assert sum(map(len, parts)) == 1617 + nines


def test_few_labels_are_spread_over_the_classes() -> None:
    """101 labels are ten of each class and one more; validation and test are those of all digits."""
    plain, few = load(), load(labels=101)
    assert torch.bincount(few.train.targets).tolist() == [11] + [10] * 9
    assert torch.equal(few.test.inputs, plain.test.inputs)
    own = {tuple(x) for x in plain.train.inputs.flatten(1).tolist()}
    kept = {tuple(x) for x in few.train.inputs.flatten(1).tolist()}
    assert kept <= own and len(kept) == 101


def test_mismatch_changes_only_what_judges() -> None:
    """Train and train_dev are the clean digits, validation and test are not; the labels are the same."""
    options = {"train_dev": 0.1, "sample_seed": 3}
    plain, other = load(**options), load(**options, where="held_out", noise=4.0)
    for name in ("train", "train_dev", "validation", "test"):
        ours, theirs = getattr(plain, name), getattr(other, name)
        assert torch.equal(ours.targets, theirs.targets)
        assert torch.equal(ours.inputs, theirs.inputs) == (name in ("train", "train_dev"))
    assert other.test.inputs.std() > 1.1 * plain.test.inputs.std()


def test_mismatch_is_standardized_by_what_is_learned_from() -> None:
    """The training split has mean 0 and deviation 1; the noisy test split a larger one."""
    data = build("data=digits_mismatch")
    assert abs(data.train.inputs.mean()) < 1e-5 and abs(data.train.inputs.std() - 1) < 1e-3
    assert data.test.inputs.std() > 1.1
    leak = build("data=digits_mismatch", "data.standardize=leak")
    assert leak.test.inputs.double().flatten(1).std(dim=0, correction=0).sub(1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"labels": 5000}, r"data\.labels=5000: allowed: null or a whole number from 10 to 1\d\d0"),
        ({"digit": 3, "positives": 0.5}, r"data\.positives=0\.5: allowed: .* from 0\.001 to 0\.102"),
        ({"digit": 3, "positives": 1e-6}, r"data\.positives=1e-06: allowed: .* from 0\.001 to 0\.102"),
        (
            {"where": "held_out", "canvas": 16},
            r"data\.canvas=16: with data\.where=held_out training has 8x8; allowed: 8",
        ),
    ],
)
def test_more_than_the_digits_have_is_refused(options: dict[str, Any], line: str) -> None:
    """One line with what is allowed, and what it allows is possible."""
    with pytest.raises(UserError, match=f"^{line}$"):
        load(**options)


def test_what_the_refusal_allows_is_possible() -> None:
    """The limits that are told are reached."""
    assert load(digit=3, positives=0.101).train.targets.mean() > 0.08
    with pytest.raises(UserError) as caught:
        load(labels=5000)
    most = int(str(caught.value).rsplit(" ", 1)[1])
    assert len(load(labels=most).train) == most

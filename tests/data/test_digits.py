"""The default data set is scikit-learn's, value for value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlexp.data import digits


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
    assert data.classes == 10 and data.input_shape == (1, 8, 8)


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

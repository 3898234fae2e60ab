"""Drawn points are what their names say, and come from their own seeds."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import dlexp
from dlexp.compose import ANY_TARGET, compose
from dlexp.data import synthetic
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError

SHARES: dict[str, Any] = {
    "validation": 0.2,
    "test": 0.2,
    "split_seed": 0,
    "standardize": "none",
    "sample_seed": 0,
}
TASKS = {
    "gate": "binary",
    "parity": "binary",
    "separable": "binary",
    "gaussians": "binary",
    "moons": "binary",
    "spirals": "binary",
    "blobs": "classification",
    "ranking": "ranking",
    "ring": "adversarial",
    "line": "regression",
    "outliers": "regression",
    "sine": "regression",
    "step": "regression",
    "abs": "regression",
    "teacher": "regression",
    "sequential_digits": "classification",
    "adding": "regression",
    "copy": "sequence_labelling",
    "recall": "sequence_labelling",
    "digit_strings": "transcription",
    "mnist1d": "classification",
    "text": "language_modelling",
}
DRAWN = [word for word in TASKS if word not in ("sequential_digits", "text")]


@cache
def values_of(word: str) -> Any:
    """What its YAML file says."""
    return OmegaConf.to_container(compose([f"data={word}"]).config.data)


def build(word: str, **values: Any) -> Dataset:
    """The data set of a word, with other values than its YAML file has."""
    assert values.keys() <= values_of(word).keys()
    data: Dataset = instantiate({**values_of(word), **values}, _convert_="all", **ANY_TARGET)
    return data


def splits(data: Dataset) -> list[Split]:
    return [data.train, data.validation, data.test]


def heap(data: Dataset) -> Split:
    """All samples, split by split."""
    return Split(
        torch.cat([part.inputs for part in splits(data)]), torch.cat([part.targets for part in splits(data)])
    )


# What all of them share


@pytest.mark.parametrize("word", TASKS)
def test_the_default_of_every_word(word: str) -> None:
    """Task, kinds of numbers, and shapes that are the same in all splits."""
    data = build(word, train_dev=0.1)
    assert data.task == TASKS[word] and data.train_dev is not None
    tokens = data.vocabulary is not None
    for part in [*splits(data), data.train_dev]:
        assert part.inputs.dtype == (torch.int64 if tokens else torch.float32)
        assert part.inputs.shape[1:] == data.input_shape and len(part.inputs) == len(part.targets)
        assert part.targets.shape[1:] == data.train.targets.shape[1:]
        assert part.inputs.isfinite().all() and part.targets.isfinite().all()
        whole = data.task in ("classification", "sequence_labelling", "language_modelling", "transcription")
        assert part.targets.dtype == (torch.int64 if whole else torch.float32)
        if data.task == "binary":
            assert part.targets.shape[1:] == (1,) and part.targets.unique().tolist() == [0.0, 1.0]
        if whole:
            assert part.targets.max() < data.outputs
        elif data.task in ("regression", "ranking"):
            assert part.targets.shape[1] == data.outputs
        if data.vocabulary is not None:
            assert part.inputs.min() >= 0 and part.inputs.max() < data.vocabulary


@pytest.mark.parametrize("word", DRAWN)
def test_data_depend_on_their_own_seeds_alone(word: str) -> None:
    """PyTorch's own generator is neither asked nor moved; another sample_seed draws something else."""
    torch.manual_seed(1)
    state, first = torch.get_rng_state(), build(word, samples=80)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = build(word, samples=80)
    for ours, theirs in zip(splits(first), splits(again), strict=True):
        assert torch.equal(ours.inputs, theirs.inputs) and torch.equal(ours.targets, theirs.targets)
    if word != "gate":  # without noise there is nothing to draw
        assert not torch.equal(first.train.inputs, build(word, samples=80, sample_seed=1).train.inputs)


@pytest.mark.parametrize("word", [word for word in DRAWN if word not in ("gate", "digit_strings")])
def test_split_seed_deals_the_same_samples_anew(word: str) -> None:
    """The heap stays, and who is held out changes."""
    values: dict[str, Any] = {"samples": 80}
    if word == "outliers":
        values["outliers"] = 0.0  # outliers are made after the samples are divided
    if "standardize" in values_of(word):
        values["standardize"] = "none"
    first, other = (build(word, **values, split_seed=seed) for seed in (0, 1))
    sums = [heap(data).inputs.flatten(1).double().sum(dim=1).sort().values for data in (first, other)]
    torch.testing.assert_close(sums[0], sums[1])
    assert not torch.equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("word", [word for word, task in TASKS.items() if task in ("binary", "regression")])
def test_two_steps_of_a_run(word: str, tmp_path: Path) -> None:
    """The default network takes them."""
    run = dlexp.run(
        [f"data={word}", "data.samples=200", "train.max_steps=2", "device=cpu", f"outputs={tmp_path}"],
        quiet=True,
    )
    assert run.summary["status"] == "finished"


def test_too_few_samples_are_told() -> None:
    """One line, with the shares and what is allowed."""
    with pytest.raises(UserError, match=r"data.validation=0.15, data.test=0.15: .*3 samples"):
        synthetic.moons(samples=3, noise=0.1, **{**SHARES, "validation": 0.15, "test": 0.15})


# Gates and parity

OPERATORS = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "nand": lambda a, b: not (a and b),
    "nor": lambda a, b: not (a or b),
    "xor": lambda a, b: a != b,
    "xnor": lambda a, b: a == b,
}


@pytest.mark.parametrize("name", synthetic.GATES)
def test_a_gate_is_pythons(name: str) -> None:
    """Every split holds all four corners equally often, each with what Python's operators say."""
    data = synthetic.gate(name, samples=43, noise=0.0, **SHARES)
    assert [len(part) for part in splits(data)] == [24, 8, 8]
    for part in splits(data):
        corners, counts = part.inputs.unique(dim=0, return_counts=True)
        assert len(corners) == 4 and counts.unique().tolist() == [len(part) // 4]
        for (a, b), (y,) in zip(part.inputs.tolist(), part.targets.tolist(), strict=True):
            assert y == float(OPERATORS[name](bool(a), bool(b)))


def test_noise_of_a_gate_moves_the_inputs_alone() -> None:
    """The nearest corners are the noiseless ones; the deviation is the one asked for."""
    clean = synthetic.gate("xor", samples=4000, noise=0.0, **SHARES)
    noisy = synthetic.gate("xor", samples=4000, noise=0.1, **SHARES)
    assert torch.equal(noisy.train.inputs.round(), clean.train.inputs)
    assert torch.equal(noisy.train.targets, clean.train.targets)
    assert (noisy.train.inputs - clean.train.inputs).std().item() == pytest.approx(0.1, rel=0.05)


def test_parity_counts_ones() -> None:
    """1 where the digits of the pattern have an odd sum, both answers about as often."""
    both = heap(synthetic.parity(bits=5, samples=400, **SHARES))
    for bits, (y,) in zip(both.inputs.int().tolist(), both.targets.tolist(), strict=True):
        assert y == "".join(map(str, bits)).count("1") % 2
    assert both.inputs.unique().tolist() == [0.0, 1.0] and both.inputs.shape == (400, 5)
    assert 0.4 < both.targets.mean() < 0.6


# Clouds


@pytest.mark.parametrize(("features", "margin"), [(2, 0.5), (7, 0.1)])
def test_separable_blobs_keep_their_margin(features: int, margin: float) -> None:
    """The facts are those of the points; a perceptron by hand stays within Novikoff's bound."""
    data = synthetic.separable(samples=300, features=features, margin=margin, spread=1.0, **SHARES)
    both, facts = heap(data), data.facts
    x, sign = both.inputs.double().numpy(), 2 * both.targets[:, 0].double().numpy() - 1
    distances = sign * (x @ np.array(facts["direction"]))
    assert np.linalg.norm(facts["direction"]) == pytest.approx(1)
    assert distances.min() == pytest.approx(facts["margin"]) and distances.min() >= margin - 1e-6
    assert np.linalg.norm(x, axis=1).max() == pytest.approx(facts["radius"])
    assert facts["margin"] < 1.5 * margin  # tight: some points come close
    weights, mistakes, clean = np.zeros(features), 0, False
    while not clean:
        clean = True
        for point, y in zip(x, sign, strict=True):
            if y * (weights @ point) <= 0:
                weights, mistakes, clean = weights + y * point, mistakes + 1, False
    assert 0 < mistakes <= (facts["radius"] / facts["margin"]) ** 2


@pytest.mark.parametrize(
    ("features", "distance", "correlation"), [(1, 1.0, 0.0), (2, 2.0, 0.5), (5, 3.0, -0.6)]
)
def test_gaussians_have_the_bayes_error_of_the_facts(
    features: int, distance: float, correlation: float
) -> None:
    """It is Phi(-d/2), and scikit-learn's linear discriminant comes as close as 20,000 points allow."""
    from scipy.stats import norm
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    data = synthetic.gaussians(
        samples=40_000, features=features, distance=distance, correlation=correlation, **SHARES
    )
    error = data.facts["bayes_error"]
    assert error == pytest.approx(norm.cdf(-distance / 2), rel=1e-12)
    both = heap(data)
    x, y = both.inputs.numpy(), both.targets[:, 0].numpy()
    rule = LinearDiscriminantAnalysis().fit(x[:20_000], y[:20_000])
    measured = 1 - rule.score(x[20_000:], y[20_000:])
    assert abs(measured - error) < 3.5 * math.sqrt(error * (1 - error) / 20_000)
    place = np.arange(features)
    expected = correlation ** np.abs(place - place[:, None]).astype(float)
    within = np.cov(x[y == 1].T)
    np.testing.assert_allclose(np.atleast_2d(within), expected, atol=0.05)


def test_blobs_are_round_clouds_around_their_centres() -> None:
    """Equally many points a class, each feature with the deviation asked for."""
    both = heap(synthetic.blobs(samples=4000, features=3, classes=4, spread=0.5, **SHARES))
    assert both.targets.bincount().tolist() == [1000] * 4
    for label in range(4):
        cloud = both.inputs[both.targets == label]
        torch.testing.assert_close(cloud.T.cov(), 0.25 * torch.eye(3), atol=0.04, rtol=0)
        assert cloud.mean(dim=0).abs().max() < 10.1


@pytest.mark.parametrize("samples", [50, 51])
def test_moons_are_those_of_scikit_learn(samples: int) -> None:
    """Without noise, point for point."""
    from sklearn.datasets import make_moons

    both = heap(synthetic.moons(samples=samples, noise=0.0, **SHARES))
    points, labels = make_moons(samples, shuffle=False)
    ours = torch.cat([both.inputs, both.targets], dim=1).double().numpy()
    theirs = np.column_stack([points, labels])
    distances = np.abs(ours[:, None] - theirs).max(axis=2)
    assert distances.min(axis=0).max() < 1e-6 and distances.min(axis=1).max() < 1e-6


def test_noise_of_moons_has_its_deviation() -> None:
    """It is added to each coordinate."""
    clean, noisy = (synthetic.moons(samples=4000, noise=noise, **SHARES) for noise in (0.0, 0.3))
    assert (noisy.train.inputs - clean.train.inputs).std().item() == pytest.approx(0.3, rel=0.05)


def test_spirals_are_half_a_turn_apart() -> None:
    """Turned back by their radius, the points of class 0 lie to the right, those of class 1 to the left."""
    both = heap(synthetic.spirals(samples=500, turns=1.5, noise=0.0, **SHARES))
    z = torch.view_as_complex(both.inputs.double().contiguous())
    unwound = z / z.abs() * torch.exp(-2j * math.pi * 1.5 * z.abs())
    expected = 1 - 2 * both.targets[:, 0].double()
    far = z.abs() > 0.01  # in single precision the angle at the centre is lost
    torch.testing.assert_close(unwound.real[far], expected[far], atol=1e-4, rtol=0)
    assert z.abs().max() <= 1 + 1e-6


# Ranking and the ring


def test_relevance_follows_a_hidden_sum() -> None:
    """Each list has every grade equally often; a linear fit of scikit-learn's finds the order."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import ndcg_score

    data = synthetic.ranking(samples=300, items=10, features=4, grades=5, noise=0.0, **SHARES)
    for row in data.train.targets:
        assert row.sort().values.tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
    fit = LinearRegression().fit(data.train.inputs.flatten(0, 1), data.train.targets.flatten())
    scores = fit.predict(data.test.inputs.flatten(0, 1)).reshape(-1, 10)
    assert ndcg_score(data.test.targets, scores) > 0.995
    noisy = synthetic.ranking(samples=300, items=10, features=4, grades=5, noise=1.0, **SHARES)
    scores = fit.predict(noisy.test.inputs.flatten(0, 1)).reshape(-1, 10)
    assert ndcg_score(noisy.test.targets, scores) < 0.97


def test_ring_of_gaussians() -> None:
    """Centres are evenly on the circle; points are spread around them, equally many each."""
    data = synthetic.ring(
        samples=800,
        modes=8,
        radius=2.0,
        spread=0.05,
        **{k: v for k, v in SHARES.items() if k != "standardize"},
    )
    centres = torch.tensor(data.facts["centres"])
    expected = [[2 * math.cos(2 * math.pi * k / 8), 2 * math.sin(2 * math.pi * k / 8)] for k in range(8)]
    torch.testing.assert_close(centres, torch.tensor(expected), atol=1e-6, rtol=1e-6)
    both = heap(data)
    nearest = torch.cdist(both.inputs, centres).argmin(dim=1)
    assert nearest.bincount().tolist() == [100] * 8
    deviation = (both.inputs - centres[nearest]).std().item()
    assert deviation == pytest.approx(data.facts["spread"], rel=0.1)
    for part in splits(data):
        assert torch.equal(part.inputs, part.targets)

"""The steps from the best error to the one on validation, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import dlexp
from dlexp.train.gaps import ERRORS, SHARES, gaps, known_best, measure
from dlexp.train.metrics import ALL

RIGHT: dict[str, float | None] = {
    "accuracy/train": 0.9,
    "accuracy/train_dev": 0.8,
    "accuracy/validation": 0.5,
    "loss/train": 1.0,
    "loss/validation": 3.0,
}


def test_the_ladder_by_hand() -> None:
    """2 % for a human, 10 % on train, 20 % on train-dev, 50 % on dev: 8 + 10 + 30 on top of the 2."""
    found = gaps(RIGHT, ["accuracy", "f1"], 0.02)
    assert found.pop("quantity") == "1 - accuracy"
    expected = {
        "best_error": 0.02,
        "avoidable_bias": 0.08,
        "variance": 0.1,
        "mismatch": 0.3,
        "dev_train": 0.4,
    }
    assert found == pytest.approx(expected)
    assert found["best_error"] + found["avoidable_bias"] + found["variance"] + found[
        "mismatch"
    ] == pytest.approx(0.5)


def test_without_train_dev_all_of_it_is_variance() -> None:
    """There is no way to tell it from mismatch; and no best error, no bias."""
    some = {tag: x for tag, x in RIGHT.items() if "train_dev" not in tag}
    found = gaps(some, ["accuracy"], None)
    assert found["variance"] == found["dev_train"] == pytest.approx(0.4)
    assert found["mismatch"] is found["avoidable_bias"] is found["best_error"] is None


def test_an_error_is_taken_as_it_is() -> None:
    """Root mean squared, in the units of the targets."""
    found = gaps({"rmse/train": 2.0, "rmse/validation": 5.0}, ["rmse", "mae"], 1.5)
    assert (found["quantity"], found["avoidable_bias"], found["variance"]) == ("rmse", 0.5, 3.0)


def test_a_number_that_is_not_finite_has_no_gap() -> None:
    """Rather no gap than one of nothing; an unknown train-dev error is not replaced by dev's."""
    for split in ("train", "train_dev"):
        assert gaps(RIGHT | {f"accuracy/{split}": None}, ["accuracy"], 0.0)["variance"] is None


@pytest.mark.parametrize(
    ("names", "found"),
    [(["zero_one", "f1"], "f1"), (["ece", "own"], "loss"), ([], "loss"), (["error_rate"], "error_rate")],
)
def test_the_first_that_is_an_error_or_a_share(names: list[str], found: str) -> None:
    """Numbers of mistakes depend on the size of a split; of a metric of one's own nothing is known."""
    assert measure(names) == found


def test_every_metric_is_a_share_an_error_or_neither() -> None:
    """Whoever adds one says which."""
    neither = {"zero_one", "ece", "fooled", "modes_covered", "two_sample"}
    assert {*SHARES, *ERRORS} | neither == set(ALL) and not set(SHARES) & set(ERRORS)


@pytest.mark.parametrize(
    ("name", "task", "best"),
    [
        ("accuracy", "binary", 0.2),
        ("error_rate", "classification", 0.2),
        ("f1", "binary", None),
        ("accuracy", "sequence_labelling", None),
        ("rmse", "regression", 3.0),
        ("mse", "regression", 9.0),
        ("rmse", "reconstruction", None),
        ("mae", "regression", None),
    ],
)
def test_what_the_data_knows(name: str, task: str, best: float | None) -> None:
    """Each fact holds for one kind of error and one kind of question."""
    assert known_best(name, task, {"bayes_error": 0.2, "best_rmse": 3.0}) == best


def summary(tmp_path: Path, *words: str) -> dict[str, Any]:
    return dlexp.run([*words, "record=off", "train.epochs=1", f"outputs={tmp_path}"], quiet=True).summary


def test_a_run_knows_the_bayes_error_of_gaussians(tmp_path: Path) -> None:
    """Two of them three deviations apart overlap by Phi(-1.5)."""
    words = ["data=gaussians", "data.distance=3", "data.correlation=0", "model=logistic_regression"]
    found = summary(tmp_path, *words)
    bayes = 0.5 * math.erfc(1.5 / math.sqrt(2))
    assert found["gaps"]["best_error"] == pytest.approx(bayes)
    error = 1 - found["metrics"]["accuracy/train"]
    assert found["gaps"]["avoidable_bias"] == pytest.approx(error - bayes)


def test_a_run_is_told_the_error_of_a_human(tmp_path: Path) -> None:
    """It goes before what the data knows; the splits are those of the summary."""
    words = ["data=digits_mismatch", "data.train_dev=0.2", "train.best_error=0.01"]
    found = summary(tmp_path, *words)
    wrong = {
        split: 1 - found["metrics"][f"accuracy/{split}"] for split in ("train", "train_dev", "validation")
    }
    assert found["gaps"]["avoidable_bias"] == pytest.approx(wrong["train"] - 0.01)
    assert found["gaps"]["variance"] == pytest.approx(wrong["train_dev"] - wrong["train"])
    assert found["gaps"]["mismatch"] == pytest.approx(wrong["validation"] - wrong["train_dev"])


def test_a_generator_has_no_gaps(tmp_path: Path) -> None:
    """Its discriminator's mistakes are its aim."""
    assert summary(tmp_path, "data=ring", "model=gan")["gaps"] is None

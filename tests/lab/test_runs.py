"""What a claim can ask of runs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dlexp.errors import UserError
from dlexp.lab.runs import Run, Runs, accuracy
from dlexp.report.jobs import Job


def run(words: str, accuracy: float | None = None, status: str = "finished", **summary: Any) -> Run:
    typed = dict(word.split("=") for word in words.split())
    metrics = {"accuracy/validation": accuracy, "accuracy/test": accuracy and accuracy - 0.1}
    content = {"status": status, "metrics": metrics, "config": {"model": {"width": 64}}, **summary}
    return Run("main", typed, Job(words, typed, content))


SWEPT = Runs(
    [
        run(
            f"activation={a} optimizer.lr={lr} seed={seed}",
            accuracy,
            "diverged" if accuracy is None else "finished",
        )
        for a, lr, seed, accuracy in (
            *(
                ("relu", "0.1", 0, 0.90),
                ("relu", "0.1", 1, 0.92),
                ("relu", "1", 0, 0.99),
                ("relu", "1", 1, None),
            ),
            *(
                ("tanh", "0.1", 0, 0.70),
                ("tanh", "0.1", 1, 0.70),
                ("tanh", "1", 0, 0.95),
                ("tanh", "1", 1, 0.97),
            ),
        )
    ]
)


def test_words_choose() -> None:
    """Swept keys, keys of the configuration, several values, other spellings of a number."""
    assert (
        len(SWEPT.of("activation=relu")) == 4 and len(SWEPT.of("activation=relu,tanh optimizer.lr=1e-1")) == 4
    )
    assert len(SWEPT.of("model.width=64")) == 8 and len(SWEPT.of("model.width=32")) == 0
    assert len(SWEPT.part("main")) == 8 and len(SWEPT.part("other")) == 0
    with pytest.raises(UserError, match=r"^activaton=relu: no run of this experiment has activaton$"):
        SWEPT.of("activaton=relu")


def test_numbers_are_those_of_one_arm() -> None:
    """By seed; a run that diverged has none; too many arms are told."""
    found = SWEPT.of("activation=relu optimizer.lr=1").values("accuracy/test")
    assert found[0] == pytest.approx(0.89) and math.isnan(found[1])
    with pytest.raises(ValueError, match=r"^4 arms that differ in activation, optimizer.lr; narrow them"):
        SWEPT.values("accuracy/test")
    assert Runs([]).values("accuracy/test") == {}
    assert SWEPT.of("activation=tanh optimizer.lr=1").values(lambda run: run.seed * 2.0) == {0: 0.0, 1: 2.0}


def test_the_best_rate_is_judged_on_validation_for_each_arm() -> None:
    """Half of the runs at a rate have to come to their end: relu's 0.99 counts, as one of two did."""
    best = SWEPT.best()
    assert {arm["activation"]: arm["optimizer.lr"] for arm in best.arms()} == {"relu": "1", "tanh": "1"}
    worse = Runs([*SWEPT, run("activation=relu optimizer.lr=1 seed=2", None, "diverged")]).best()
    assert {arm["activation"]: arm["optimizer.lr"] for arm in worse.arms()} == {"relu": "0.1", "tanh": "1"}


@pytest.mark.parametrize(("outputs", "guessed"), [(10, 0.1), (2, 0.5), (1, 0.5)])
def test_a_network_that_diverged_guesses(outputs: int, guessed: float) -> None:
    """A single output tells two classes apart."""
    assert accuracy(run("seed=0", None, "diverged", data={"outputs": outputs})) == guessed
    assert accuracy(run("seed=0", 0.9)) == pytest.approx(0.8)


def test_by_keeps_the_order_of_asking() -> None:
    assert list(SWEPT.by("activation")) == ["relu", "tanh"] and list(SWEPT.by("optimizer.lr")) == ["0.1", "1"]


def test_a_profile_has_the_layers_with_weights() -> None:
    """Streams of residual networks are none; what is absent is nan; a failed run has no profile."""
    layers = [
        {"parameters": 6, "first": {"delta_rms": 0.5}},
        {"parameters": 0, "first": {"delta_rms": 9.0}},
        {"parameters": 6, "first": {"delta_rms": None}},
    ]
    first = run("seed=0", 0.5, layers=layers).profile("delta_rms")
    assert first[0] == 0.5 and math.isnan(first[1]) and len(first) == 2
    assert run("seed=0", None, "diverged", layers=layers).profile("delta_rms")[0] == 0.5
    assert run("seed=0", None, "failed", layers=layers).profile("delta_rms") == []


def test_the_factor_at_the_start_is_known_of_a_run_that_diverged() -> None:
    layers = [{"parameters": 1, "first": {"delta_rms": x}, "last": {"delta_rms": x}} for x in (1.0, 4.0, 1.0)]
    diverged = run("seed=0", 0.9, "diverged", layers=layers)
    assert diverged.number("delta_factor_first") == pytest.approx(0.25)
    assert math.isnan(diverged.number("delta_factor_last")) and math.isnan(diverged.number("accuracy/test"))


def test_what_was_measured_is_a_run_as_well() -> None:
    measured = Run("bound", {"depth": "3", "seed": "1"}, Job("x", {}, {}), None, {"ratio": 0.5})
    assert measured.number("ratio") == 0.5 and measured.seed == 1 and math.isnan(measured.number("other"))
    assert Runs([measured]).of("depth=3").values("ratio") == {1: 0.5}

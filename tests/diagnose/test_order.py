"""One root cause, the rest under it; and answers that name none."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from made import CHANCE, CONFIG, LAYERS, MLP, RECORDED, decades, made, stuck, table

from dlexp.diagnose import IDS, SEVERITIES, Diagnosis, diagnose
from dlexp.diagnose.evidence import Evidence

ONES = np.ones(LAYERS)
ALIKE = {("distinct_rows", end): ONES / 64 for end in ("first", "last")}
DEAD = {("dead_units", end): 0.7 * ONES for end in ("first", "last")}


def ids(found: Diagnosis) -> list[str]:
    return [found.primary, *(one["id"] for one in found.folded)]


def test_a_healthy_network_gets_one_quiet_line() -> None:
    found = diagnose(made())
    assert (found.primary, found.severity, found.folded, found.override) == ("healthy", "none", [], [])
    assert found.sentence == "No fault found: the loss has come down by 91%."
    assert found.confidence is None


def test_symmetry_explains_dead_units() -> None:
    assert ids(diagnose(stuck(looks=ALIKE | DEAD)))[:2] == ["symmetric", "dead_units"]


def test_a_fading_signal_explains_deaths_unless_all_are_dead_or_held_down() -> None:
    faded = {"delta_rms": decades(4.0)}
    assert ids(diagnose(stuck(looks=DEAD, quantities=faded)))[:2] == ["vanishing", "dead_units"]
    every = dict.fromkeys(DEAD, 0.95 * ONES)
    assert diagnose(stuck(looks=every, quantities=faded)).primary == "dead_units"
    config = CONFIG | {"initializer": {"bias": -1.0}}
    assert diagnose(stuck(looks=DEAD, quantities=faded, config=config)).primary == "dead_units"


def test_an_exploding_signal_explains_the_first_loss_and_its_end() -> None:
    loss = np.full(RECORDED, 50 * CHANCE)
    loss[3:] = np.inf
    e = stuck(loss=loss, status="diverged", diverged={"step": 3}, quantities={"delta_rms": decades(-4.0)})
    assert ids(diagnose(e)) == ["exploding", "bad_init_scale", "non_finite"]


def test_unscaled_inputs_explain_saturation() -> None:
    slopes = {("slope_mean", end): 0.1 * ONES for end in ("first", "last")}
    e = stuck(inputs=(0.0, 60.0), looks=slopes, activations=("Tanh",) * 6 + (None,))
    assert ids(diagnose(e))[:2] == ["input_scale", "saturated"]


def test_steps_that_are_too_large_explain_deaths_and_what_fades_after_them() -> None:
    late = table([1e-3] * LAYERS)
    late[1:] = decades(5.0)[1:]
    dead = {("dead_units", "first"): 0.1 * ONES, ("dead_units", "last"): ONES}
    e = stuck(quantities={"update_ratio": table(0.5 * ONES), "delta_rms": late}, looks=dead)
    assert ids(diagnose(e)) == ["lr_too_high", "vanishing", "dead_units", "not_learning"]


def test_a_penalty_explains_large_steps_of_weights_near_zero() -> None:
    norms = np.geomspace(8, 0.1, RECORDED)[:, None] * ONES
    config = CONFIG | {"optimizer": {"lr": 0.1, "weight_decay": 0.5}}
    e = stuck(quantities={"weight_norm": norms, "update_ratio": table(0.5 * ONES)}, config=config)
    found = diagnose(e)
    assert ids(found) == ["not_learning", "lr_too_high"] and found.override == ["optimizer.weight_decay=0"]


def test_what_does_no_harm_is_a_note_and_no_fault() -> None:
    found = diagnose(made(inputs=(0.0, 60.0)))
    assert (found.primary, found.severity) == ("healthy", "info")
    assert [one["id"] for one in found.folded] == ["input_scale"]
    both = diagnose(stuck(inputs=(0.0, 60.0), looks=ALIKE))
    assert both.primary == "symmetric"  # a fault comes first


def test_the_sentence_ends_with_what_to_try() -> None:
    found = diagnose(stuck(quantities={"delta_rms": decades(5.0)}, choices=MLP | {"activation": "sigmoid"}))
    assert found.sentence.endswith(" Try: activation=relu initializer=kaiming_normal")
    assert found.override == ["activation=relu", "initializer=kaiming_normal"]
    assert found.further[0] == ["normalization=batch"]
    assert found.evidence["quantity"] == "decades of delta_rms" and found.evidence["layer"] == "01_linear"
    assert found.confidence == pytest.approx(3.0)


def test_a_network_that_dlexp_did_not_make_gets_no_words() -> None:
    found = diagnose(stuck(quantities={"delta_rms": decades(5.0)}, choices=None, config={}))
    assert (found.primary, found.override, found.further) == ("vanishing", [], [])
    assert "Try" not in found.sentence


WATCHED: dict[str, Any] = {"chance": None, "choices": None, "config": {}}


def test_a_loss_that_ends_where_guessing_is_says_nothing() -> None:
    """It started five times higher; of ten classes guessing costs ln 10, if it is cross-entropy."""
    falling = CHANCE * np.concatenate([np.full(5, 5.0), np.full(RECORDED - 5, 1.04)])
    e = made(loss=falling, metrics={}, **WATCHED)
    found = diagnose(e)
    assert found.primary == "cannot_tell" and "guessing among 10 classes costs (2.3)" in found.sentence
    lower = dataclasses.replace(e, loss=0.9 * e.loss)
    assert diagnose(lower).primary == "healthy"
    assert "of what it was at the start" in diagnose(lower).sentence
    told = dataclasses.replace(e, choices=MLP)
    assert diagnose(told).primary == "healthy"  # its loss is known not to have a best constant answer


CANNOT = [
    (Evidence((), np.zeros(0), np.zeros(0), {}), "nothing was recorded"),
    (made(trained=5), "5 steps of training are too few"),
    (made(choices=MLP | {"loss": "minimax"}), "what a constant answer would get is not known"),
]


@pytest.mark.parametrize(("evidence", "said"), CANNOT)
def test_nobody_can_tell(evidence: Evidence, said: str) -> None:
    found = diagnose(evidence)
    assert (found.primary, found.severity) == ("cannot_tell", "none") and said in found.sentence


def test_without_a_validation_split_overfitting_is_not_told() -> None:
    found = diagnose(made(validation=np.zeros(0), evaluated=np.zeros(0)))
    assert found.primary == "healthy" and "Without loss/validation" in found.sentence


def test_a_diagnosis_is_plain_json() -> None:
    """Also where a number is infinite; and it uses the words that are agreed on."""
    loss = np.full(RECORDED, np.nan)
    e = stuck(loss=loss, status="diverged", diverged={"step": 0, "layer": "01_linear", "reason": "x"})
    for found in (diagnose(e), diagnose(made()), diagnose(stuck())):
        assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()
        assert found.primary in IDS and found.severity in SEVERITIES
        assert set(found.as_dict()) == {field.name for field in dataclasses.fields(Diagnosis)}

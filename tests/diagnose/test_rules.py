"""Each rule fires on what it is for, by hand-made numbers, and stays quiet in the traps beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made import CHANCE, CONFIG, LAYERS, MLP, RECORDED, decades, made, stuck, table

from dlexp.diagnose import signals, training
from dlexp.diagnose.evidence import Evidence, theil_sen
from dlexp.diagnose.order import ORDER

ONES = np.ones(LAYERS)


def test_a_healthy_network_sets_off_no_rule() -> None:
    """Nor does one that has learned nothing yet in five steps, but for no rule's fault."""
    assert [rule.__name__ for rule in ORDER if rule(made())] == []


# -- what is not finite -------------------------------------------------------------------------------------


def blown(step: int) -> Evidence:
    loss = np.full(RECORDED, CHANCE)
    loss[step:] = np.nan
    told = {"step": step, "layer": "03_linear", "reason": "its activation_rms is not finite"}
    return stuck(loss=loss, status="diverged", diverged=told)


def test_non_finite_names_the_layer_and_the_step() -> None:
    found = signals.non_finite(blown(4))
    assert found and found.layers == ("03_linear",) and found.since == 4
    assert found.remedies[0] == ("optimizer.lr=0.01",)


def test_non_finite_from_the_start_is_no_fault_of_the_learning_rate() -> None:
    found = signals.non_finite(blown(0))
    assert found and "from the start" in found.sentence
    assert found.remedies[0] == ("initializer=kaiming_normal",)


def test_no_other_rule_is_led_astray_by_a_run_without_a_finite_step() -> None:
    """NaN is neither a small displacement nor a large step."""
    nothing = {name: np.full((RECORDED, LAYERS), np.nan) for name in made().quantities}
    e = replace(blown(0), quantities=nothing, looks={})
    assert [rule.__name__ for rule in ORDER if rule(e)] == ["non_finite"]


# -- symmetric ----------------------------------------------------------------------------------------------


def rows(first: Any, last: Any) -> dict[tuple[str, str], np.ndarray]:
    return {("distinct_rows", "first"): np.asarray(first, float), ("distinct_rows", "last"): np.asarray(last)}


def test_units_that_start_and_stay_alike() -> None:
    found = signals.symmetric(stuck(looks=rows(ONES / 64, ONES / 64)))
    assert found and found.severity == "critical" and found.value == 1 / 64
    assert len(found.layers) == LAYERS - 1  # not the one that answers
    assert found.margin == pytest.approx(np.log10(0.75 * 64))


@pytest.mark.parametrize(
    ("first", "last", "shapes"),
    [
        (0.9 * ONES, 0.9 * ONES, ((64, 64),) * 7),  # a few alike
        (ONES / 64, ONES, ((64, 64),) * 7),  # the last layer of a residual branch starts at 0: they part
        (ONES / 2, ONES / 2, ((2, 64),) * 7),  # two units of two
        ([1] * 6 + [0.1], [1] * 6 + [0.1], ((64, 64),) * 7),  # a head that starts at 0
    ],
)
def test_no_symmetry(first: Any, last: Any, shapes: Any) -> None:
    assert signals.symmetric(made(looks=rows(first, last), shapes=shapes)) is None


def test_a_branch_that_starts_at_zero_in_a_run_that_diverged() -> None:
    """How it ended is not known; that other layers do not start at 0 is."""
    first = np.array([1, 1 / 64] * 3 + [1.0])
    norms = {"weight_norm": table(np.where(first < 1, 0.0, 8.0))}
    e = made(looks=rows(first, np.nan * ONES), quantities=norms)
    assert signals.symmetric(e) is None
    assert signals.symmetric(replace(e, quantities=dict(e.quantities) | {"weight_norm": table(8 * ONES)}))


# -- exploding and vanishing --------------------------------------------------------------------------------


def test_an_error_that_fades_is_told_with_its_factor() -> None:
    found = signals.vanishing(stuck(quantities={"delta_rms": decades(5.0)}))
    assert found and found.severity == "critical" and found.since == 0
    assert found.value == pytest.approx(5.0) and found.margin == pytest.approx(3.0)
    assert found.numbers["factor"] == pytest.approx(0.1)
    assert "x0.1 per layer from layer 6 down to 1 (5.0 decades), from step 0 on" in found.sentence


def test_the_sigmoid_is_told_of_its_slope_and_replaced() -> None:
    e = stuck(
        quantities={"delta_rms": decades(5.0)},
        activations=("Sigmoid",) * 6 + (None,),
        choices=MLP | {"activation": "sigmoid"},
    )
    found = signals.vanishing(e)
    assert found and found.sentence.endswith("sigmoid's slope is at most 0.25")
    assert found.remedies[0] == ("activation=relu", "initializer=kaiming_normal")


def test_a_layer_unlike_the_others_does_not_tilt_the_slope() -> None:
    column = np.full(LAYERS, 1e-3)
    column[0] = 1e-9
    assert signals.vanishing(made(quantities={"delta_rms": table(column)})) is None


def test_the_output_layer_alone_is_no_evidence() -> None:
    """Its error is larger by a factor of its own."""
    assert signals.vanishing(made(quantities={"delta_rms": table([1e-3] * 6 + [1e2])})) is None


def test_three_hidden_layers_are_too_few_for_a_slope() -> None:
    deltas = {"delta_rms": decades(6.0, 4)}
    base = {name: values[:, :4] for name, values in made().quantities.items()}
    e = made(4, quantities=base | deltas)
    assert signals.vanishing(e) is None and signals.exploding(e) is None


def test_a_single_early_step_is_not_enough() -> None:
    """It has to hold on two recorded steps."""
    deltas = table([1e-3] * LAYERS)
    deltas[1] = decades(5.0)[0]
    assert signals.vanishing(made(quantities={"delta_rms": deltas})) is None


def test_what_adam_hides_later_is_seen_early() -> None:
    deltas = table([1e-3] * LAYERS)
    deltas[:4] = decades(5.0)[:4]
    found = signals.vanishing(stuck(quantities={"delta_rms": deltas}))
    assert found and found.since == 0


def test_an_error_that_grows_on_one_step_alone_does_not_explode() -> None:
    """Two early steps, unless there is but one with numbers."""
    deltas = table([1e-3] * LAYERS)
    deltas[0] = decades(-5.0)[0]
    assert signals.exploding(stuck(quantities={"delta_rms": deltas})) is None
    deltas[1:] = np.nan
    assert signals.exploding(stuck(quantities={"delta_rms": deltas}))
    deltas[0], deltas[1:3] = np.nan, decades(-5.0)[:2]
    found = signals.exploding(stuck(quantities={"delta_rms": deltas}))
    assert found and found.since == int(stuck().steps[1])


@pytest.mark.parametrize(
    ("choices", "position", "first"),
    [
        ({}, "before", ("model=residual_mlp", "model.branch=pre_norm", "model.depth=3")),
        (
            {},
            "after",
            ("model=residual_mlp", "model.branch=pre_norm", "normalization.position=before", "model.depth=3"),
        ),
        ({"activation": "gelu"}, "after", ("initializer=kaiming_normal",)),
        ({"model": "cnn"}, "before", ("model.depth=4",)),
    ],
)
def test_no_initializer_helps_where_normalization_undoes_its_scale(
    choices: dict[str, str], position: str, first: tuple[str, ...]
) -> None:
    config = CONFIG | {"normalization": {"position": position}}
    config |= {"model": {"depth": 8}} if choices.get("model") == "cnn" else {}
    choices = MLP | {"normalization": "batch"} | choices
    for rule, total in ((signals.exploding, -5.0), (signals.vanishing, 5.0)):
        found = rule(stuck(quantities={"delta_rms": decades(total)}, choices=choices, config=config))
        assert found and found.remedies[0] == first


def test_an_error_that_grows_explodes() -> None:
    found = signals.exploding(stuck(quantities={"delta_rms": decades(-5.0)}))
    assert found and found.quantity == "decades of delta_rms" and found.value == pytest.approx(5.0)
    assert "x10 per layer on its way back" in found.sentence


def test_so_does_an_activation() -> None:
    growing = table([*10 ** np.linspace(0, 4, 6), 1.0])
    found = signals.exploding(stuck(quantities={"activation_rms": growing}))
    assert found and found.quantity == "decades of activation_rms" and found.value == pytest.approx(4.0)


@pytest.mark.parametrize("total", [-1.7, 0.4])
def test_deep_batch_norm_explodes_mildly_by_theory(total: float) -> None:
    e = made(quantities={"delta_rms": decades(total)})
    assert signals.exploding(e) is None and signals.vanishing(e) is None


def test_of_a_residual_network_the_sums_count() -> None:
    """Inside a branch the error may be small: it is handed on past it. And sums grow by design."""
    weighted = np.array([True, *[True, True, False] * 5, True])
    deltas, growing = np.where(weighted, 1e-9, 1e-3), np.geomspace(1, 1e3, 17)
    base = {name: np.tile(v[:, :1], (1, 17)) for name, v in made().quantities.items()}
    e = made(
        17,
        weighted=weighted,
        quantities=base | {"delta_rms": table(deltas), "activation_rms": table(growing)},
    )
    assert signals.vanishing(e) is None and signals.exploding(e) is None
    fading = np.geomspace(1e-8, 1e-3, 17)
    assert signals.vanishing(replace(e, quantities=dict(e.quantities) | {"delta_rms": table(fading)}))


def through_time(total: float, **changes: Any) -> Evidence:
    """Two layers, a cell of 20 time steps and the answer."""
    series = np.tile(1e-3 * 10 ** np.linspace(0, total, 20), (RECORDED, 1))
    base = {name: v[:, :2] for name, v in made().quantities.items()}
    looks = {name: v[:2] for name, v in made().looks.items()}
    fixed: dict[str, Any] = {
        "cells": np.array([True, False]),
        "activations": (None, None),
        "choices": MLP | {"model": "rnn", "activation": "relu"},
        "over_time": {("delta_rms", 0): series},
    }
    return (stuck if changes.pop("is_stuck", True) else made)(
        layers=2, quantities=base, looks=looks, **fixed | changes
    )


def test_a_signal_that_fades_over_time_and_does_harm() -> None:
    found = signals.vanishing(through_time(8.0))
    assert found and found.value == pytest.approx(8.0) and "through time" in found.sentence
    assert found.remedies[0] == ("model=lstm", "model.gate_bias=2")


def test_a_network_that_learned_had_nothing_to_remember() -> None:
    assert signals.vanishing(through_time(8.0, is_stuck=False)) is None


def test_the_cell_state_carries_what_the_hidden_state_loses() -> None:
    faded = np.tile(1e-3 * 10 ** np.linspace(0, 8, 20), (RECORDED, 1))
    series = {("delta_rms", 0): faded, ("cell_delta_rms", 0): np.full((RECORDED, 20), 1e-3)}
    assert signals.vanishing(through_time(0.0, over_time=series)) is None


def test_a_signal_that_grows_over_time() -> None:
    found = signals.exploding(through_time(-6.0))
    assert found and found.value == pytest.approx(6.0)


# -- dead and saturated -------------------------------------------------------------------------------------


def dead(first: float, last: float) -> dict[tuple[str, str], np.ndarray]:
    ends = {"first": first, "last": last}
    return {("dead_units", end): np.array([0.1, share] + [0.1] * 5) for end, share in ends.items()}


def test_units_born_dead() -> None:
    found = signals.born_dead(stuck(looks=dead(0.8, 0.8)))
    assert found and found.value == 0.8 and found.layers == ("02_linear",) and found.since == 0
    assert found.margin == pytest.approx(np.log10(1.6))
    assert signals.died(stuck(looks=dead(0.8, 0.8))) is None  # that was no death


def test_a_negative_bias_is_taken_back() -> None:
    config = CONFIG | {"initializer": {"bias": -3.0}}
    found = signals.born_dead(stuck(looks=dead(1.0, 1.0), config=config))
    assert found and found.remedies[0] == ("initializer.bias=0",)


def test_units_that_died_at_a_step() -> None:
    shares = table(0.1 * ONES)
    shares[10:, 1] = 0.9
    e = stuck(looks=dead(0.1, 0.9), quantities={"dead_fraction": shares})
    found = signals.died(e)
    assert found and found.since == int(e.steps[10]) and found.remedies[0] == ("optimizer.lr=0.01",)
    assert signals.born_dead(e) is None


@pytest.mark.parametrize("share", [0.39, 0.5])
def test_a_share_that_healthy_layers_have(share: float) -> None:
    assert signals.born_dead(made(looks=dead(share, 0.1))) is None
    assert signals.died(stuck(looks=dead(0.1, share))) is None


def test_entries_that_are_zero_are_no_dead_units() -> None:
    e = made(quantities={"zero_grad_fraction": table(0.8 * ONES)}, looks={("slope_mean", "last"): 0.2 * ONES})
    assert signals.born_dead(e) is None and signals.died(e) is None


def test_four_of_eight_units_may_be_dead_by_chance() -> None:
    e = stuck(looks=dead(0.5, 0.5), shapes=((8, 8),) * 7)
    assert signals.born_dead(e) is None
    assert signals.born_dead(stuck(looks=dead(0.75, 0.5), shapes=((8, 8),) * 7))


def test_deaths_in_a_network_that_learned_well_did_no_harm() -> None:
    assert signals.died(made(looks=dead(0.1, 0.9))) is None


def test_without_a_look_the_batch_counts() -> None:
    shares = table(0.1 * ONES)
    shares[:, 2] = 0.9
    e = stuck(quantities={"dead_fraction": shares})
    found = signals.born_dead(replace(e, looks={}))
    assert found and found.layers == ("03_linear",)


def flat(first: float, last: float, activation: str = "Tanh", **changes: Any) -> Evidence:
    looks = {("slope_mean", "first"): first * ONES, ("slope_mean", "last"): last * ONES}
    return stuck(looks=looks, activations=(activation,) * 6 + (None,), **changes)


def test_saturated_at_the_start() -> None:
    found = signals.saturated(flat(0.1, 0.1))
    assert found and found.since == 0 and found.value == pytest.approx(0.1)
    assert found.margin == pytest.approx(np.log10(2.5))


def test_the_slope_counts_against_the_steepest_of_its_activation() -> None:
    """A sigmoid with a mean slope of 0.2 is near the middle, a tanh far out."""
    assert signals.saturated(flat(0.2, 0.2, "Sigmoid")) is None
    assert signals.saturated(flat(0.2, 0.2, "Tanh"))
    assert signals.saturated(flat(0.05, 0.05, "Sigmoid"))


def test_a_relu_does_not_saturate() -> None:
    assert signals.saturated(flat(0.1, 0.1, "ReLU")) is None


def test_trained_networks_drift_to_the_flat_ends() -> None:
    """Later it counts only where the network has not learned."""
    late = flat(0.6, 0.2)
    assert signals.saturated(late)
    learned = replace(late, loss=made().loss, metrics={"loss/train": 0.2})
    assert signals.saturated(learned) is None


# -- scales -------------------------------------------------------------------------------------------------


def test_a_first_loss_far_above_chance() -> None:
    found = signals.bad_init_scale(stuck(loss=np.full(RECORDED, 20 * CHANCE), metrics={}))
    assert found and found.value == pytest.approx(20.0) and found.severity == "critical"


def test_a_first_loss_that_has_come_down_at_once_did_no_harm() -> None:
    loss = made().loss.copy()
    loss[0] = 6 * CHANCE
    found = signals.bad_init_scale(made(loss=loss))
    assert found and found.severity == "info"


def test_a_first_loss_a_few_times_chance_is_none() -> None:
    loss = made().loss.copy()
    loss[0] = 4.5 * CHANCE
    assert signals.bad_init_scale(made(loss=loss)) is None
    assert signals.bad_init_scale(made(loss=10 * loss, chance=None)) is None  # against what?


def test_numbers_far_from_zero_are_no_large_start() -> None:
    """Mean 10, deviation 1: a network that answers 0 starts 101 times above the best constant answer."""
    e = stuck(loss=np.full(RECORDED, 101.0), metrics={}, chance=1.0, zero=101.0)
    assert signals.bad_init_scale(e) is None
    assert signals.bad_init_scale(replace(e, zero=None))
    found = signals.bad_init_scale(replace(e, zero=10.0))
    assert found and found.value == pytest.approx(10.1)


RAW = CONFIG | {"data": {"standardize_targets": False}}


@pytest.mark.parametrize(
    ("chance", "zero", "said"),
    [(1.0, 101.0, "a mean of 10 deviations"), (5776.0, 28900.0, "a deviation of 76")],
)
def test_targets_out_of_scale(chance: float, zero: float, said: str) -> None:
    level = {"loss": np.full(RECORDED, zero), "metrics": {}, "chance": chance, "zero": zero}
    found = signals.target_scale(stuck(config=RAW, **level))
    assert found and found.id == "input_scale" and said in found.sentence
    assert found.remedies[0] == ("data.standardize_targets=true",)
    assert signals.target_scale(stuck(**level)) is None  # scaled already
    learned = level | {"loss": np.geomspace(zero, chance / 10, RECORDED)}
    assert signals.target_scale(made(config=RAW, **learned)) is None


@pytest.mark.parametrize("inputs", [(40.0, 10.0), (0.0, 60.0), (0.0, 0.01), (255.0, 50.0)])
def test_inputs_out_of_scale(inputs: tuple[float, float]) -> None:
    found = signals.input_scale(stuck(inputs=inputs))
    assert found and found.severity == "critical" and found.remedies[0] == ("data.standardize=feature",)


@pytest.mark.parametrize("inputs", [(0.0, 1.0), (0.13, 0.31), (0.1, 0.3), (4.9, 6.0), None])
def test_pixels_and_one_hot_inputs_are_fine(inputs: Any) -> None:
    assert signals.input_scale(stuck(inputs=inputs)) is None


def test_inputs_that_the_network_coped_with() -> None:
    found = signals.input_scale(made(inputs=(0.0, 60.0)))
    assert found and found.severity == "info"


# -- how training went --------------------------------------------------------------------------------------


def test_steps_that_are_too_large() -> None:
    found = training.lr_too_high(stuck(quantities={"update_ratio": table(0.5 * ONES)}))
    assert found and found.value == 0.5 and found.margin == pytest.approx(np.log10(0.5) + 1.1)
    assert found.remedies[0] == ("optimizer.lr=0.0005",)  # 0.1 * 10^-2.5 / 0.5 = 0.00063


def test_large_steps_that_training_bears() -> None:
    """Harm is asked for: leaky ReLU at lr 1 takes steps of 4 % and learns as well as at 0.1."""
    assert training.lr_too_high(made(quantities={"update_ratio": table(0.5 * ONES)})) is None


def test_the_first_step_alone_may_be_large() -> None:
    """Rows that start at 0 have an infinite ratio."""
    u = table(2e-3 * ONES)
    u[0] = 5.0
    assert training.lr_too_high(stuck(quantities={"update_ratio": u})) is None


def test_a_run_that_diverged_by_its_last_step() -> None:
    u = table(2e-3 * ONES)
    u[3] = 0.2
    found = training.lr_too_high(replace(blown(4), quantities=dict(made().quantities) | {"update_ratio": u}))
    assert found and found.value == pytest.approx(0.2) and "no longer finite" in found.sentence


def still(distance: float, **changes: Any) -> Evidence:
    moved = {("displacement", "last"): distance * ONES}
    return stuck(looks=moved, quantities={"update_ratio": table(1e-6 * ONES)}, **changes)


def test_weights_that_stay_where_they_were() -> None:
    found = training.lr_too_low(still(0.001))
    assert found and found.margin == pytest.approx(np.log10(20))
    assert found.remedies[0] == ("optimizer.lr=20",)  # 0.1 * 10^-2.5 / 1e-6, but never more than that


def test_a_short_run_need_not_go_far() -> None:
    assert training.lr_too_low(still(0.015))
    assert training.lr_too_low(still(0.015, trained=300)) is None


def test_a_wide_network_learns_without_moving() -> None:
    moved = {("displacement", "last"): 0.001 * ONES}
    assert training.lr_too_low(made(looks=moved)) is None


def test_steps_that_shrink_when_it_has_converged() -> None:
    assert training.lr_too_low(made(quantities={"update_ratio": table(1e-7 * ONES)})) is None


def test_without_a_look_the_sum_of_the_steps_is_the_most_it_can_have_moved() -> None:
    e = replace(still(0.0), looks={})
    assert training.moved(e) == pytest.approx(1e-6 * 599)
    assert training.lr_too_low(e)


def test_a_loss_that_swings() -> None:
    swinging = np.array([0.7, 1.5, 2.3])[np.arange(20) % 3]
    found = training.unstable_loss(made(validation=swinging))
    assert found and found.value == pytest.approx(0.8 / 1.5)


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_swings_near_zero_are_noise(level: float) -> None:
    swinging = level * (1 + 0.5 * (-1.0) ** np.arange(20))
    assert training.unstable_loss(made(validation=swinging)) is None


def test_a_game_may_swing() -> None:
    swinging = np.array([0.7, 1.5, 2.3])[np.arange(20) % 3]
    for rule, curve in ((training.unstable_loss, swinging), (training.overfit, RISING)):
        assert rule(made(validation=curve))
        assert rule(made(validation=curve, choices=MLP | {"loss": "non_saturating"})) is None


def test_a_loss_that_swings_on_its_way_down() -> None:
    falling = np.geomspace(2.2, 0.5, 20) * (1 + 0.3 * (-1.0) ** np.arange(20))
    assert training.unstable_loss(made(validation=falling)) is None


RISING = np.concatenate([np.linspace(2.2, 1.5, 8), np.linspace(1.6, 3.0, 12)])


def test_a_validation_loss_that_rises() -> None:
    found = training.overfit(made(validation=RISING))
    assert (
        found
        and found.value == pytest.approx(RISING[-2] / 1.6 - 1)  # medians of three
        and found.since == int(made().evaluated[6])
    )
    assert found.remedies[0] == ("dropout=standard", "stopping=early")


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": np.geomspace(2.2, 1.9, 20)},  # a gap alone
        {"validation": 0.1 * RISING},  # a rise at a level that nobody minds
        {"validation": RISING, "metrics": {"loss/train": 1.5}},  # training is no better
        {"validation": np.zeros(0)},  # nobody can tell
        {"validation": RISING, "restored": True},  # the best weights are back
        {
            "validation": np.where(np.arange(20) == 19, 9.0, np.geomspace(2.2, 0.5, 20))
        },  # a blip of batch norm
    ],
)
def test_no_overfitting(changes: dict[str, Any]) -> None:
    assert training.overfit(made(**changes)) is None


def test_a_network_that_never_beat_chance_on_validation_may_have_wrong_labels() -> None:
    found = training.overfit(made(validation=2 * RISING))
    assert found and found.sentence.endswith("are the labels right?")


def test_a_layer_that_does_not_move() -> None:
    u = table(2e-3 * ONES)
    u[:, 2] = 0.0
    found = training.frozen_layer(made(quantities={"update_ratio": u}))
    assert found and found.layers == ("03_linear",)


def test_a_layer_that_moves_a_thousand_times_less() -> None:
    u = table(2e-3 * ONES)
    u[:, 2] = 1e-7
    assert training.frozen_layer(made(quantities={"update_ratio": u}))
    u[:, 2] = 1e-4
    assert training.frozen_layer(made(quantities={"update_ratio": u})) is None


def test_frozen_on_purpose() -> None:
    u = table(2e-3 * ONES)
    u[:, :5] = 0.0
    config = CONFIG | {"model": {"frozen": True}}
    assert training.frozen_layer(made(quantities={"update_ratio": u}, config=config)) is None


FED = np.array([False] * 4 + [True] * 3)  # a backbone of four layers, without a gradient


def backbone(**changes: Any) -> Evidence:
    still = np.where(FED, 2e-3, 0.0)
    looks = {("displacement", "last"): np.where(FED, 0.4, 0.0)}
    return stuck(fed=FED, looks=looks, quantities={"update_ratio": table(still)}, **changes)


def test_a_frozen_backbone_is_no_fault_and_no_learning_rate() -> None:
    e = backbone()
    assert e.names(e.learning) == ("05_linear", "06_linear")
    assert training.moved(e) == 0.4
    assert training.lr_too_low(e) is None and training.frozen_layer(e) is None
    assert training.lr_too_low(replace(e, fed=None)) and training.frozen_layer(replace(e, fed=None))


def test_a_layer_without_a_gradient_between_others_is_forgotten() -> None:
    u, fed = table(2e-3 * ONES), np.ones(LAYERS, bool)
    u[:, 2], fed[2] = 0.0, False
    found = training.frozen_layer(made(quantities={"update_ratio": u}, fed=fed))
    assert found and found.sentence == "Frozen: layer 3 (1 of 6 hidden) does not move"


def test_where_only_the_last_layer_learns_it_is_judged() -> None:
    fed = np.array([False] * 6 + [True])
    looks = {("displacement", "last"): np.where(fed, 1e-4, 0.0)}
    e = stuck(fed=fed, looks=looks, quantities={"update_ratio": table(np.where(fed, 1e-6, 0.0))})
    found = training.lr_too_low(e)
    assert found and found.value == 1e-4
    assert training.lr_too_low(replace(e, looks={("displacement", "last"): 0.4 * ONES})) is None


def test_a_layer_that_never_runs_is_not_hidden() -> None:
    u, absent = table(2e-3 * ONES), np.zeros(LAYERS, bool)
    u[:, 2], absent[2] = 0.0, True
    e = made(quantities={"update_ratio": u}, absent=absent, fed=~absent)
    assert training.frozen_layer(e) is None and len(e.hidden) == LAYERS - 2
    unused = replace(e, absent=np.arange(LAYERS) == LAYERS - 1)  # then the one before it answers
    assert e.names(unused.hidden)[-1] == "05_linear"


def test_not_learning() -> None:
    found = training.not_learning(stuck())
    assert found and found.remedies[0] == ("optimizer=adam",)
    assert training.not_learning(stuck(trained=50)) is None  # no network has to have learned so soon


def test_what_is_learned_by_heart_alone() -> None:
    """Wrong labels: the training loss comes down, on others the network is no better than a constant."""
    found = training.not_learning(made(validation=np.linspace(1.0, 1.1, 20) * CHANCE))
    assert found and found.severity == "warning" and found.value == pytest.approx(1.0)
    assert "has come down by 91%" in found.sentence and "by heart" in found.sentence
    assert training.not_learning(made(validation=np.linspace(0.97, 1.1, 20) * CHANCE)) is None
    assert training.not_learning(made(validation=np.full(20, CHANCE), chance=None)) is None
    meant = CONFIG | {"train": {"fixed_batch": True}}
    assert training.not_learning(made(validation=np.full(20, CHANCE), config=meant)) is None


def test_weights_that_a_penalty_shrinks() -> None:
    norms = np.geomspace(8, 0.5, RECORDED)[:, None] * ONES
    config = CONFIG | {"optimizer": {"lr": 0.1, "weight_decay": 0.5}}
    found = training.not_learning(stuck(quantities={"weight_norm": norms}, config=config))
    assert found and found.remedies[0] == ("optimizer.weight_decay=0",)
    assert "shrinks" in found.sentence


def test_the_slope_of_points_by_hand() -> None:
    """The median of all pairs: one point out of five far off does not matter."""
    assert theil_sen(np.arange(5), np.array([0, 2, 4, 6, 1e9])) == 2.0
    assert theil_sen(np.arange(4), np.array([1.0, np.nan, 3.0, 4.0])) == 1.0

"""The rules of evidence, on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from dlexp.lab.verdict import (
    Verdict,
    all_of,
    at_least,
    at_most,
    exceeds,
    fact,
    given,
    identity,
    matters,
    near,
    over,
    spread_of,
)

NAN = math.nan


def seeds(*numbers: float) -> dict[int, float]:
    return dict(enumerate(numbers))


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((0.9, 0.95, 0.92), "supported"),
        ((0.9, 0.95, 0.89), "inconclusive"),  # two of three
        ((0.1, 0.2, 0.3), "refuted"),
        ((0.95, 0.95, 0.95, 0.95, 0.1), "supported"),  # four of five
        ((0.95, 0.95, 0.95, 0.1), "inconclusive"),  # three of four: of less than five all have to
        ((0.95, 0.95, 0.95, 0.1, 0.1), "inconclusive"),
        ((0.1, 0.1, 0.1, 0.1, 0.95), "refuted"),
        ((0.95,), "inconclusive"),  # one seed says nothing
        ((0.95, 0.95), "inconclusive"),
        ((), "inconclusive"),
        ((0.95, 0.95, NAN), "inconclusive"),
        ((0.1, 0.1, NAN), "inconclusive"),  # a run that is lost does not speak against the claim, either
        ((0.95, 0.95, 0.95, 0.95, NAN), "supported"),
        ((NAN, NAN, NAN), "inconclusive"),
        ((math.inf, math.inf, math.inf), "supported"),
    ],
)
def test_at_least(numbers: tuple[float, ...], word: str) -> None:
    """Every seed, or 80 % of five and more, on the one side or on the other."""
    assert at_least(seeds(*numbers), 0.9).word == word
    assert at_most({seed: -x for seed, x in seeds(*numbers).items()}, -0.9).word == word


def test_a_verdict_carries_number_spread_and_seeds() -> None:
    """Mean 2 and sample standard deviation 1 of 1, 2, 3."""
    found = at_least(seeds(1, 2, 3), 0.5)
    assert (found.number, found.spread, found.seeds) == (2.0, 1.0, 3)
    assert found.measured == "2 ± 1 (3 seeds; asked: at least 0.5)"
    assert at_least(seeds(2), 0.5).measured == "2 (1 seed; 3 are needed; asked: at least 0.5)"
    assert at_least({}, 0.5).measured == "no runs"
    assert found.says("accuracy").measured.startswith("accuracy: 2 ± 1")


def test_what_has_no_number_is_told() -> None:
    assert spread_of([1, 3, NAN]) == "2 ± 1.41, 1 without a number"
    assert spread_of([NAN]) == "no number, 1 without a number" and spread_of([]) == "no number"


def test_exceeds_is_paired_and_has_a_margin() -> None:
    """Means may overlap as long as each seed's own difference is large enough."""
    low, high = seeds(0.1, 0.5, 0.9), seeds(0.2, 0.6, 1.0)
    assert exceeds(high, low, by=0.05).word == "supported"
    assert exceeds(low, high, by=0.05).word == "refuted"
    assert exceeds(high, low, by=0.2).word == exceeds(low, high, by=0.2).word == "inconclusive"
    assert exceeds(high, seeds(0.1, 0.5), by=0.05).word == "inconclusive"  # a seed without its partner
    assert exceeds(high, low, by=0.05).number == pytest.approx(0.1)


def test_near_is_a_share_of_theory() -> None:
    assert near(seeds(0.23, 0.24, 0.26), 0.25, within=0.1).word == "supported"
    assert near(seeds(0.2, 0.3, 0.31), 0.25, within=0.1).word == "refuted"
    assert near(seeds(0.24, 0.3, 0.31), 0.25, within=0.1).word == "inconclusive"
    assert near(seeds(-1.0, -1.05, -0.95), -1, within=0.1).word == "supported"


def test_an_identity_needs_no_seeds_and_no_nan() -> None:
    assert identity(seeds(0.0), 0.0).word == "supported"
    assert identity(seeds(1e-7, -2e-7), 1e-6).word == "supported"
    assert identity(seeds(1e-7, -2e-6), 1e-6).word == "refuted"
    assert identity(seeds(0.0, NAN), 1e-6).word == identity({}, 1e-6).word == "inconclusive"
    assert identity(seeds(0.0, math.inf), 1e-6).word == "inconclusive"


YES, NO, UNCLEAR = (
    Verdict(word, f"{x} (3 seeds)", 3) for word, x in (("supported", 2), ("refuted", 0), ("inconclusive", 1))
)


def test_over_a_factor_it_depends_where_the_sign_changes() -> None:
    """With the crossing where it changes once along numbers, with names where there is no order."""
    found = over("depth", {"1": YES, "2": YES, "5": NO, "20": NO})
    assert (found.word, found.factor, found.crossing) == (
        "depends",
        "depth",
        "supported up to 2, refuted from 5 on",
    )
    assert found.measured == (
        "by depth, supported up to 2, refuted from 5 on:"
        " supported at 1 (2), 2 (2); refuted at 5 (0), 20 (0) (3 seeds each)"
    )
    assert over("depth", {"20": NO, "5": NO, "1": YES}).crossing == "supported up to 1, refuted from 5 on"
    named = over("optimizer", {"sgd": YES, "adam": NO})
    assert named.word == "depends" and named.crossing == "supported at sgd; refuted at adam"
    back = over("depth", {"1": YES, "2": NO, "3": YES})
    assert back.word == "depends" and back.crossing == "supported at 1, 3; refuted at 2"


def test_over_a_factor_without_a_change_of_sign() -> None:
    assert over("depth", {1: YES, 2: YES}).word == "supported"
    assert over("depth", {1: NO, 2: NO}).word == "refuted"
    assert over("depth", {1: YES, 2: UNCLEAR}).word == "inconclusive"
    assert over("depth", {}).word == "inconclusive"


def test_all_of() -> None:
    """One part that is refuted refutes the whole."""
    assert all_of({"a": YES, "b": YES}).word == "supported"
    assert all_of({"a": YES, "b": NO}).word == "refuted"
    assert all_of({"a": YES, "b": UNCLEAR}).word == all_of({}).word == "inconclusive"
    assert all_of({"a": YES, "b": over("x", {1: YES, 2: NO})}).word == "depends"


def test_parts_of_parts_are_told() -> None:
    inner = over("width", {"8": at_least(seeds(2, 2, 2), 1), "64": at_least(seeds(0, 2, 2), 1)})
    whole = over("depth", {"2": inner, "10": at_least(seeds(0, 0, 0), 1)})
    said = "inconclusive at 2 (by width: supported at 8 (2 ± 0); inconclusive at 64 (1.33 ± 1.15))"
    assert whole.measured == f"by depth: refuted at 10 (0 ± 0); {said} (3 seeds each)"


def test_a_control_that_fails_leaves_the_question_open() -> None:
    """Whatever the measurement says: without its control it says nothing of the claim."""
    held = given({"shallow": YES}, NO)
    assert held.word == "refuted" and held.measured == "0 (3 seeds); control: shallow 2"
    for control in (NO, UNCLEAR):
        for verdict in (YES, NO):
            found = given({"shallow": control}, verdict)
            assert found.word == "inconclusive"
            how = "not met" if control is NO else "open"
            assert found.measured.startswith(f"control {how}: shallow: ")
    assert dict(held.parts) == {"measured": NO, "control: shallow": YES}
    apart = given({"shallow": YES}, over("depth", {5: YES, 8: NO}))
    assert apart.word == "depends" and apart.factor == "depth"
    assert [name for name, _ in apart.parts] == ["5", "8", "control: shallow"]


def test_what_depends_within_a_part_is_kept() -> None:
    """Worked out by hand: the factors that are named are those along which the sign changes."""
    inner = over("rate", {1: YES, 2: NO})
    assert (over("width", {8: YES, 16: inner}).word, over("width", {8: YES, 16: inner}).factor) == (
        "depends",
        "width and rate",
    )
    both = over("width", {8: inner, 16: over("depth", {1: YES, 5: NO})})
    assert (both.word, both.factor) == ("depends", "rate and depth")
    assert all_of({"a": inner, "b": over("depth", {1: YES, 5: NO})}).factor == "rate and depth"
    assert all_of({"a": YES, "b": inner}).crossing == "supported up to 1, refuted from 2 on"


def test_a_difference_matters_or_is_shown_to_be_small() -> None:
    assert matters(seeds(0.02, 0.03, 0.04), 0.01).word == "supported"
    assert matters(seeds(0.001, -0.002, 0.004), 0.01).word == "refuted"
    assert matters(seeds(0.001, 0.02, 0.03), 0.01).word == "inconclusive"
    assert matters(seeds(0.02, 0.02, 0.02), 0.01).measured == "0.02 ± 0 (3 seeds; matters from 0.01)"


def test_a_fact_as_a_control_has_no_seeds_to_count() -> None:
    assert given({"formula": fact(True, "0")}, YES).seeds == 3


def test_of_many_parts_a_line_tells_the_ends_and_the_verdict_keeps_all() -> None:
    arms = {width: at_least(seeds(*[width / 10] * 3), 0.25) for width in range(1, 11)}
    found = over("width", arms)
    assert found.crossing == "refuted up to 2, supported from 3 on"
    assert "refuted at 1 (0.1 ± 0), 2 (0.2 ± 0)" in found.measured
    assert "supported at 8 of 10, from 3 (0.3 ± 0) to 10 (1 ± 0)" in found.measured
    assert [name for name, _ in found.parts] == [str(width) for width in range(1, 11)]
    whole = all_of({str(width): arms[width] for width in range(3, 11)})
    assert whole.measured == "supported at all 8, from 3 (0.3 ± 0) to 10 (1 ± 0) (3 seeds each)"


def test_a_fact() -> None:
    assert fact(None, "0 of 0").word == "inconclusive"
    assert fact(True, "1 = 1").word == "supported" and fact(False, "1 = 2").word == "refuted"

"""A choice is built as Hydra's `instantiate` builds it, with Hydra or without."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hydra.utils import instantiate

from dlexp.build import assemble
from dlexp.build.target import locate
from dlexp.compose import ANY_TARGET, compose
from dlexp.errors import UserError


def give(*args: Any, **values: Any) -> tuple[Any, ...]:
    return (*args, values)


def raises(**_: Any) -> None:
    raise ValueError("too  much\nof it")


HERE = __name__
PLAIN: list[dict[str, Any]] = [
    {"_target_": f"{HERE}.give"},
    {"_target_": f"{HERE}.give", "a": 1, "b": None, "c": [1, {"d": "e"}], "f": {}},
    {"_target_": f"{HERE}.give", "_partial_": False, "a": 2.5},
]
MORE: list[dict[str, Any]] = [
    {"_target_": f"{HERE}.give", "inner": {"_target_": f"{HERE}.give", "a": 1}},
    {"_target_": f"{HERE}.give", "inner": [{"deep": {"_target_": f"{HERE}.give"}}]},
    {"_target_": f"{HERE}.give", "_args_": [1, 2], "a": 3},
    {"_target_": f"{HERE}.give", "_recursive_": False, "inner": {"_target_": f"{HERE}.give"}},
]


@pytest.mark.parametrize("node", PLAIN + MORE)
def test_what_is_built_is_what_hydra_builds(node: dict[str, Any]) -> None:
    expected = instantiate(node, _convert_="all", **ANY_TARGET)
    assert assemble._instantiated(locate("", node["_target_"]), node) == expected


@pytest.mark.parametrize("node", PLAIN + MORE)
def test_hydra_is_asked_only_for_more_than_a_call(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(assemble, "instantiate", lambda *args, **_: asked.append(args))
    assemble._instantiated(give, node)
    assert bool(asked) == (node in MORE)


def test_a_factory_has_the_values_of_its_file() -> None:
    node = {"_target_": f"{HERE}.give", "_partial_": True, "a": [1]}
    made = assemble._instantiated(give, node)
    assert isinstance(made, partial)
    expected = instantiate(node, _convert_="all", **ANY_TARGET)
    assert (made.func, made.args, made.keywords) == (expected.func, expected.args, expected.keywords)


def test_what_a_constructor_raises_is_one_line() -> None:
    request = compose([f"+regularizer._target_={HERE}.raises"])
    with pytest.raises(UserError) as caught:
        assemble._build(request, "regularizer")
    asked = f"regularizer._target_={HERE}.raises"
    assert str(caught.value) == f"{asked}: ValueError: too much of it (HYDRA_FULL_ERROR=1 shows the trace)"


def test_the_loss_of_a_task_is_not_changed_by_a_run() -> None:
    before = assemble._loss_of_task("classification").copy()
    filled = assemble._fill_in(compose(["+loss.label_smoothing=0.1"]), "classification")
    assert filled.config.loss.label_smoothing == 0.1
    filled.config.loss.reduction = "sum"
    assert assemble._loss_of_task("classification") == before

"""What becomes of the signal, and since when: by hand, on records made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dlexp
from dlexp.report.facts import forward_broke, of_run, signal, story, through_time
from dlexp.report.load import Run


def run_of(folder: Path, deltas: list[list[float | None]]) -> Run:
    """A run whose layers had these `delta_rms` at steps 0, 10, 20, ..."""
    header = {"layers": [f"{i:02d}_linear" for i in range(len(deltas[0]))], "quantities": ["delta_rms"]}
    lines = [{"step": 10 * n, "loss": 1.0, "delta_rms": line} for n, line in enumerate(deltas)]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    return Run(folder)


LAYERS: list[dict[str, Any]] = [{"name": f"{i:02d}_linear", "parameters": 9} for i in range(3)]


def told(found: dict[str, Any] | None, **more: Any) -> str:
    """The story of a run of which nothing else is known."""
    facts = {"signal": found, "status": "finished", "diverged": None, "growth": None, "over_time": []}
    return " ".join(story(facts | more))


@pytest.mark.parametrize(
    ("deltas", "becomes", "total", "since"),
    [
        ([[1.0, 1.0, 5.0]], "arrives", 1.0, 0),
        ([[1e-3, 1.0, 5.0], [2e-3, 1.0, 5.0]], "vanishes", 2e-3, 0),
        ([[1.0, 1.0, 5.0], [0.5, 1.0, 5.0], [1e-3, 1.0, 5.0], [1e-4, 1.0, 5.0]], "vanishes", 1e-4, 20),
        ([[1e-3, 1.0, 5.0], [0.5, 1.0, 5.0], [1e-3, 1.0, 5.0]], "vanishes", 1e-3, 20),
        ([[1.0, 1.0, 5.0], [300.0, 1.0, 5.0]], "explodes", 300.0, 10),
        ([[0.0, 1.0, 5.0]], "vanishes", 0.0, 0),
        ([[1.0, 1.0, 5.0], [None, 1.0, 5.0]], "arrives", 1.0, 0),
        ([[0.0, 0.0, 5.0]], "absent", None, 0),
        ([[1.0, 1.0, 5.0], [0.0, 0.0, 5.0], [0.0, 0.0, 5.0]], "absent", None, 10),
    ],
)
def test_what_becomes_of_the_signal(
    deltas: list[list[float | None]], becomes: str, total: float | None, since: int, tmp_path: Path
) -> None:
    """From the last hidden layer to the first; the outputs do not count."""
    found = signal(run_of(tmp_path, deltas), LAYERS)
    assert found is not None
    assert (found["becomes"], found["since"]) == (becomes, since)
    assert found["total"] == (None if total is None else pytest.approx(total))
    known = [n for n, own in enumerate(deltas) if None not in own]
    assert found["at"] == 10 * known[-1]
    assert found["zeros"] == [f"{i:02d}_linear" for i in range(2) if deltas[known[-1]][i] == 0]
    said = told(found)
    words = {"absent": "No signal", "arrives": "neither vanishes nor explodes"}
    assert words.get(becomes, becomes) in said
    if becomes != "arrives":
        assert (f"from step {since} on" if since else "from the start on") in said
    if becomes == "absent":
        assert "delta_rms is exactly 0 in all 2 hidden layers, 00_linear to 01_linear" in said


def test_one_hidden_layer_can_get_nothing(tmp_path: Path) -> None:
    found = signal(run_of(tmp_path, [[0.0, 5.0]]), LAYERS[:2])
    assert found is not None and found["becomes"] == "absent"
    assert "exactly 0 in the hidden layer 00_linear" in told(found)


def test_where_nothing_is_known(tmp_path: Path) -> None:
    """A single hidden layer, and a network in which nothing came back to the last one."""
    assert signal(run_of(tmp_path, [[1.0, 5.0]]), LAYERS[:2]) is None
    assert signal(run_of(tmp_path, [[1.0, 0.0, 5.0]]), LAYERS) is None
    assert told(None) == ""


def test_heads_are_not_hidden(tmp_path: Path) -> None:
    """The signal ends at the last layer before them."""
    heads = [{"kind": "Linear", "path": f"heads.{n}", "shape": [1, 8]} | LAYERS[n] for n in range(2)]
    found = signal(run_of(tmp_path, [[1e-3, 1.0, 70.0, 70.0]]), [*LAYERS[:2], *heads])
    assert found is not None and found["total"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("reason", "said", "forward"),
    [
        (
            "its activation_rms is not finite",
            "breaks on its way forward at step 4: b is the first layer",
            True,
        ),
        ("its delta_rms is not finite", "breaks on its way back at step 4: b is the first layer from", False),
        ("its output is finite, but too large for the loss", "not finite at step 4: b: its output is", True),
    ],
)
def test_where_the_signal_broke(reason: str, said: str, forward: bool) -> None:
    """On which way, when and where, how it had grown, and what was known last."""
    broke = {"step": 4, "layer": "b", "reason": reason}
    grew = {"first_step": 0, "first": 2.0, "last_step": 3, "last": 1e30}
    last = {"becomes": "explodes", "total": 500.0, "since": 0, "at": 3, "zeros": []}
    text = told(last, status="diverged", diverged=broke, growth=grew)
    assert said in text and "went from 2 at step 0 to 1.0e30 at step 3" in text
    assert "At step 3, the last with numbers, 500 times as much of the error arrived" in text
    assert forward_broke({"diverged": broke}) == forward and not forward_broke({"diverged": None})


def test_what_is_lost_over_time(tmp_path: Path) -> None:
    """From the last time step back to the first, of cells alone; by hand."""
    header = {"layers": ["cell", "head"], "quantities": ["delta_rms"]}
    series = {"cell": [1e-9, 1e-6, 1e-3], "head": [1.0, 1.0]}
    states = {"cell": [0.0, 1e-2, None]}
    line = {"step": 0, "loss": 1.0, "delta_rms": [1.0, 1.0]}
    line["over_time"] = {"delta_rms": series, "cell_delta_rms": states}
    text = "".join(json.dumps(row) + "\n" for row in (header, line))
    (tmp_path / "records.jsonl").write_text(text)
    layers = [{"name": "cell", "is_cell": True, "parameters": 9}, {"name": "head", "is_cell": False}]
    own, state = through_time(Run(tmp_path), layers)
    assert own == {
        "layer": "cell",
        "quantity": "delta_rms",
        "steps": 3,
        "total": pytest.approx(1e-6),
        "factor": pytest.approx(1e-3),
        "reaches": 0,
    }
    assert (state["quantity"], state["total"], state["reaches"]) == ("cell_delta_rms", 0.0, 1)
    said = told(None, over_time=[own, state])
    assert "Back through 3 time steps delta_rms of cell changes by a factor of 0.001 a step" in said
    assert "1.0e-6 in all (6.0 decades lost)" in said
    assert "nothing of cell_delta_rms of cell reaches time steps before 1 of 3" in said


def test_what_a_model_has_no_place_for_is_not_said(tmp_path: Path) -> None:
    """Of the words that not every model takes: those it does, or where that is not on record, those typed."""
    words = ["model=softmax_regression", "train.max_steps=2", f"hydra.run.dir={tmp_path / 'run'}"]
    dlexp.run(words, quiet=True)
    assert of_run(tmp_path / "run")["used"] == []
    run_of(tmp_path, [[1.0, 5.0]])
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- dropout=standard\n- activation.slope=2\n")
    assert of_run(tmp_path)["used"] == ["activation", "dropout"]


def test_a_half_finished_run_says_what_was_asked(tmp_path: Path) -> None:
    run_of(tmp_path, [[1.0, 1.0, 5.0]])
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 3\nmodel: {depth: 2}\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: mlp, hydra/x: y}}}\n")
    found = of_run(tmp_path)
    assert (found["status"], found["seed"], found["choices"]) == ("unfinished", 3, {"model": "mlp"})
    assert found["config"] == {"seed": 3, "model": {"depth": 2}}
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: [")
    assert of_run(tmp_path)["config"] is None

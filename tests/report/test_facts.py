"""What becomes of the signal, and since when: by hand, on records made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlexp.report.facts import in_words, of_run, signal
from dlexp.report.load import Run


def run_of(folder: Path, deltas: list[list[float | None]]) -> Run:
    """A run whose layers had these `delta_rms` at steps 0, 10, 20, ..."""
    header = {"layers": [f"{i:02d}_linear" for i in range(len(deltas[0]))], "quantities": ["delta_rms"]}
    lines = [{"step": 10 * n, "loss": 1.0, "delta_rms": line} for n, line in enumerate(deltas)]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    return Run(folder)


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
    ],
)
def test_what_becomes_of_the_signal(
    deltas: list[list[float | None]], becomes: str, total: float, since: int, tmp_path: Path
) -> None:
    """From the last hidden layer to the first; the outputs do not count."""
    layers: list[dict[str, Any]] = [{"parameters": 9}] * 3
    found = signal(run_of(tmp_path, deltas), layers)
    assert found == {"becomes": becomes, "total": pytest.approx(total), "since": since}
    said = in_words(found)
    assert said is not None and (becomes in said or "neither vanishes nor explodes" in said)
    if becomes != "arrives":
        assert (f"from step {since} on" if since else "from the start on") in said


def test_where_nothing_is_known(tmp_path: Path) -> None:
    """A single hidden layer, and a network in which nothing came back to the last one."""
    assert signal(run_of(tmp_path, [[1.0, 5.0]]), [{"parameters": 9}] * 2) is None
    assert signal(run_of(tmp_path, [[1.0, 0.0, 5.0]]), [{"parameters": 9}] * 3) is None
    assert in_words(None) is None


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

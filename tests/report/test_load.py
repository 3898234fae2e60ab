"""Run folders to pandas, from files written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dlexp
from dlexp.errors import UserError

HEADER = {"layers": ["01_linear", "02_linear"], "quantities": ["grad_norm", "dead_fraction"]}
LINES: list[dict[str, Any]] = [
    {
        "step": 0,
        "loss": 2.5,
        "accuracy": 0.1,
        "grad_norm": [1.0, 2.0],
        "dead_fraction": [0.25, None],
        "reasons": {"dead_fraction": [None, "no activation"]},
    },
    {
        "step": 10,
        "loss": None,
        "accuracy": 0.5,
        "grad_norm": [3.0, None],
        "dead_fraction": [0.5, None],
        "reasons": {"loss": "inf"},
    },
]
METRICS = [{"step": 9, "loss/validation": 2.0, "accuracy/validation": 0.25}, {"step": 19, "loss/test": None}]
SUMMARY = {
    "status": "finished",
    "quantities": HEADER["quantities"],
    "layers": [
        {
            "name": "01_linear",
            "first": {"grad_norm": 1.0, "dead_fraction": 0.25},
            "last": {"grad_norm": 3.0, "dead_fraction": 0.5},
        },
        {
            "name": "02_linear",
            "first": {"grad_norm": 2.0, "dead_fraction": None},
            "last": {"grad_norm": None, "dead_fraction": None},
        },
    ],
}


def text(lines: list[Any]) -> str:
    """JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of two layers, recorded twice."""
    (tmp_path / "records.jsonl").write_text(text([HEADER, *LINES]), encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(text(METRICS), encoding="utf-8")
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY), encoding="utf-8")
    return tmp_path


def test_records_are_tidy(folder: Path) -> None:
    """A row per step and layer, a column per quantity, NaN where the file has null."""
    nan = float("nan")
    expected = pd.DataFrame(
        {
            "step": [0, 0, 10, 10],
            "layer": ["01_linear", "02_linear"] * 2,
            "loss": [2.5, 2.5, nan, nan],
            "accuracy": [0.1, 0.1, 0.5, 0.5],
            "grad_norm": [1.0, 2.0, 3.0, nan],
            "dead_fraction": [0.25, nan, 0.5, nan],
        }
    )
    pd.testing.assert_frame_equal(dlexp.load(folder).records, expected)


def test_layers_are_a_row_per_layer(folder: Path) -> None:
    """Columns (quantity, first or last), numbers as in summary.json, NaN for null."""
    layers = dlexp.load(str(folder)).layers
    assert list(layers.index) == ["01_linear", "02_linear"] and layers.index.name == "layer"
    assert list(layers.columns) == [
        ("grad_norm", "first"),
        ("grad_norm", "last"),
        ("dead_fraction", "first"),
        ("dead_fraction", "last"),
    ]
    assert layers.loc["01_linear"].tolist() == [1.0, 3.0, 0.25, 0.5]
    assert layers.loc["02_linear"].isna().tolist() == [False, True, True, True]
    assert set(map(str, layers.dtypes)) == {"float64"}


def test_looks_stand_behind_the_quantities(folder: Path) -> None:
    """They are in the summary alone; a run that goes on has none yet."""
    looked = json.loads(json.dumps(SUMMARY)) | {"looks": ["slope_mean"]}
    for layer, (first, last) in zip(looked["layers"], ((0.5, 0.25), (None, None)), strict=True):
        layer["first"]["slope_mean"], layer["last"]["slope_mean"] = first, last
    (folder / "summary.json").write_text(json.dumps(looked), encoding="utf-8")
    layers = dlexp.load(folder).layers
    assert list(layers.columns)[-2:] == [("slope_mean", "first"), ("slope_mean", "last")]
    assert layers["slope_mean"].loc["01_linear"].tolist() == [0.5, 0.25]
    assert layers["slope_mean"].loc["02_linear"].isna().all()
    (folder / "summary.json").unlink()
    assert len(dlexp.load(folder).layers.columns) == 4


def test_summary_is_the_file(folder: Path) -> None:
    """The summary is summary.json as a dict, and its status shows in the repr."""
    assert dlexp.load(folder).summary == SUMMARY
    assert repr(dlexp.load(folder)) == f"Run({str(folder)!r}, finished)"


def test_metrics_are_a_row_per_evaluation(folder: Path) -> None:
    """Each line of metrics.jsonl is a row; what it lacks is NaN."""
    metrics = dlexp.load(folder).metrics
    assert metrics["step"].tolist() == [9, 19]
    assert metrics["loss/validation"].tolist()[0] == 2.0 and pd.isna(metrics["loss/validation"][1])


@pytest.mark.parametrize("rest", ['{"step": 20, "loss": 1.0, "gra', '{"step": 20', "{", ""])
def test_a_last_line_cut_short_is_left_out(folder: Path, rest: str) -> None:
    """A run killed while it wrote a line still loads, up to the line before."""
    path = folder / "records.jsonl"
    path.write_text(text([HEADER, *LINES]) + rest, encoding="utf-8")
    (folder / "summary.json").unlink()
    run = dlexp.load(folder)
    assert run.records["step"].tolist() == [0, 0, 10, 10]
    assert "no summary yet" in repr(run)


@pytest.mark.parametrize("content", ["", '{"layers": ["01_lin', text([HEADER])])
def test_nothing_recorded_yet_is_an_empty_table(folder: Path, content: str) -> None:
    """A run that has just begun, or records nothing, loads with no rows but with its columns."""
    (folder / "records.jsonl").write_text(content, encoding="utf-8")
    records = dlexp.load(folder).records
    assert len(records) == 0
    assert {"step", "layer", "loss"} <= set(records.columns)


def test_missing_metrics_are_an_empty_table(folder: Path) -> None:
    """A run killed before its first evaluation has no rows of metrics."""
    (folder / "metrics.jsonl").unlink()
    assert dlexp.load(folder).metrics.empty


def test_layers_that_were_never_recorded_are_nan(folder: Path) -> None:
    """With record=off the layer table has its rows, all of them empty."""
    (folder / "records.jsonl").write_text(text([HEADER]), encoding="utf-8")
    table = dlexp.load(folder).layers
    assert list(table.index) == HEADER["layers"] and table.isna().all(axis=None)
    assert list(table.columns) == [(q, when) for q in HEADER["quantities"] for when in ("first", "last")]


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    """One line names the folder and what is missing."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        dlexp.load(tmp_path / name)
    message = f"{tmp_path / name}: not a run folder; it has neither records.jsonl nor summary.json"
    assert caught.value.lines == (message,)


def test_a_sweep_is_loaded_by_another_name(tmp_path: Path) -> None:
    """Which the error says."""
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"nor summary\.json; a sweep is loaded by dlexp\.load_sweep$"):
        dlexp.load(tmp_path)
    assert dlexp.load_sweep(tmp_path).runs.empty

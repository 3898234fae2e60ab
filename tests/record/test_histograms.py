"""Histograms are those of numpy, in the event file too, and cost nothing where nobody asked for them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dlexp
from dlexp.record.histograms import BINS, Histogram, measure


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_counts_are_those_of_numpy(scale: float) -> None:
    torch.manual_seed(0)
    parts = [scale * torch.randn(40, 7), scale * torch.rand(11)]
    found = Histogram.read(measure(parts).numpy())
    flat = torch.cat([t.double().flatten() for t in parts]).numpy()
    counts, edges = np.histogram(flat, BINS)
    assert np.abs(found.counts - counts).sum() <= 2  # a number on an edge may fall to either side
    assert (found.low, found.high) == (edges[0], edges[-1]) == (flat.min(), flat.max())
    assert found.total == pytest.approx(flat.sum()) and found.squares == pytest.approx((flat**2).sum())


def test_numbers_that_are_not_finite_are_left_out() -> None:
    found = Histogram.read(measure([torch.tensor([math.nan, 1.0, 2.0, math.inf, -math.inf])]).numpy())
    assert (found.low, found.high, found.total, found.counts.sum()) == (1.0, 2.0, 3.0, 2.0)


def test_equal_numbers_are_one_bin() -> None:
    found = Histogram.read(measure([torch.zeros(5, 3)]).numpy())
    assert (found.low, found.high) == (0.0, 0.0) and found.counts.tolist() == [15.0] + [0.0] * (BINS - 1)


def test_tensorboard_reads_them(tmp_path: Path) -> None:
    """At each recorded step, of each layer; weights, numbers and records are as without."""
    few = ["train.max_steps=6", "record.every=5", "model.depth=1", "train.keep_weights=true"]
    words = [*few, "activation=tanh", f"outputs={tmp_path}"]
    run = dlexp.run(["record.histograms=true", *words], quiet=True)
    found = EventAccumulator(str(run.folder), size_guidance={"histograms": 0}).Reload()
    names = ["01_linear", "02_linear"]
    expected = {f"{kind}/{name}" for kind in ("activation", "delta", "gradient") for name in names}
    assert set(found.Tags()["histograms"]) == expected
    by_layer = run.records.set_index(["step", "layer"])
    for event in found.Histograms("activation/01_linear"):
        spread = event.histogram_value
        rms = math.sqrt(spread.sum_squares / spread.num)
        assert rms == pytest.approx(by_layer.loc[(event.step, "01_linear"), "activation_rms"], rel=1e-5)
        assert sum(spread.bucket) == spread.num == 64 * 64
        assert spread.max == pytest.approx(spread.bucket_limit[-1]) and -1 <= spread.min < spread.max <= 1
    for event in found.Histograms("gradient/02_linear"):
        norm = math.sqrt(event.histogram_value.sum_squares)
        assert norm == pytest.approx(by_layer.loc[(event.step, "02_linear"), "grad_norm"], rel=1e-5)
    assert [event.step for event in found.Histograms("delta/02_linear")] == [0, 5]
    without = dlexp.run(words, quiet=True)
    assert (run.folder / "records.jsonl").read_bytes() == (without.folder / "records.jsonl").read_bytes()
    assert not EventAccumulator(str(without.folder)).Reload().Tags()["histograms"]


def test_recurrent_layers_and_embeddings_have_them(tmp_path: Path) -> None:
    words = ["data=text", "model=lstm", "train.max_steps=2", "record.histograms=true", f"outputs={tmp_path}"]
    run = dlexp.run(words, quiet=True)
    assert run.summary["status"] == "finished"
    assert EventAccumulator(str(run.folder)).Reload().Tags()["histograms"]

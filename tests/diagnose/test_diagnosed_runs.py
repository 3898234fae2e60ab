"""Short real runs, from words to a diagnosis of what was written; and of runs that are not whole."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dlexp
from dlexp.diagnose import evidence, of_run
from dlexp.diagnose.evidence import Evidence
from dlexp.errors import UserError
from dlexp.record import probes

QUIET = ("device=cpu", "threads=1", "record.tensorboard=false")
DIGITS = {
    "healthy": "model.depth=4 initializer=kaiming_normal train.max_steps=300",
    "healthy cnn": "model=cnn train.max_steps=200",
    "healthy residual": "model=residual_mlp model.depth=6 optimizer=adam train.max_steps=200",
    "healthy lstm": "data=sequential_digits model=lstm optimizer=adam optimizer.lr=5e-3 train.max_steps=200",
    "vanishing": "model.depth=6 activation=sigmoid initializer=xavier_normal train.max_steps=150",
    "exploding": "model.depth=8 initializer=normal train.max_steps=50",
    "symmetric": "initializer=zeros train.max_steps=150",
    "symmetric of many units": "model.width=600 initializer=constant initializer.val=0.01 train.max_steps=30",
    "dead_units": "initializer=kaiming_normal initializer.bias=-5 train.max_steps=150",
    "lr_too_high": "optimizer=adam optimizer.lr=1 train.max_steps=150",
    "lr_too_low": "optimizer.lr=1e-6 train.max_steps=150",
    "overfit": "data=digits_mislabelled data.label_noise=0.5 model.width=256 optimizer=adam"
    " train.max_steps=1200",
    "cannot_tell": "train.max_steps=5",
}


def run(folder: Path, words: str) -> dlexp.report.load.Run:
    return dlexp.run([*QUIET, *words.split(), f"hydra.run.dir='{folder}'"], quiet=True)


@pytest.mark.parametrize("truth", DIGITS)
def test_real_runs(tmp_path: Path, truth: str) -> None:
    run(tmp_path / "run", DIGITS[truth])
    assert of_run(tmp_path / "run").primary == truth.split()[0]


def test_a_frozen_source_is_no_low_learning_rate(tmp_path: Path) -> None:
    """A new last layer on top of what is there: that is what the rate is judged by."""
    run(tmp_path / "old", "initializer=kaiming_normal train.max_steps=150 train.keep_weights=true")
    for lr, truth in (("0.1", "healthy"), ("1e-6", "lr_too_low")):
        words = f"model=transfer model.source='{tmp_path / 'old'}' optimizer.lr={lr} train.max_steps=300"
        run(tmp_path / lr, words)
        assert of_run(tmp_path / lr).primary == truth


def test_targets_as_they_are(tmp_path: Path) -> None:
    made = run(tmp_path / "run", "data=diabetes data.standardize_targets=false train.max_steps=150")
    facts, found = made.summary["facts"], of_run(tmp_path / "run")
    assert facts["zero_loss"] > 3 * facts["chance_loss"]
    assert (found.primary, found.override) == ("input_scale", ["data.standardize_targets=true"])


def test_the_sentence_of_a_sigmoid_network(tmp_path: Path) -> None:
    """Its factor is that of the recorded deltas, worked out here by all pairs of layers."""
    made = run(tmp_path / "run", DIGITS["vanishing"])
    found = of_run(tmp_path / "run")
    deltas = made.records.query("step == 0")["delta_rms"].to_numpy()[:-1]
    pairs = itertools.combinations(range(6), 2)
    slope = np.median([np.log10(deltas[j] / deltas[i]) / (j - i) for i, j in pairs])
    assert found.evidence["factor"] == pytest.approx(10**-slope)
    assert f"loses x{10**-slope:.2g} per layer from layer 6 down to 1" in found.sentence
    assert found.override == ["activation=relu", "initializer=kaiming_normal"] and found.since == 0


def test_a_run_that_was_killed_is_diagnosed_by_its_records(tmp_path: Path) -> None:
    run(tmp_path / "run", DIGITS["vanishing"])
    (tmp_path / "run/summary.json").unlink()
    lines = (tmp_path / "run/records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run/records.jsonl").write_bytes(b"".join(lines[:20]) + lines[20][:30])
    assert of_run(tmp_path / "run").primary == "vanishing"


def test_a_run_without_records(tmp_path: Path) -> None:
    run(tmp_path / "run", "record=off train.max_steps=30")
    assert of_run(tmp_path / "run").primary == "cannot_tell"


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        of_run(tmp_path)


@pytest.mark.parametrize(("bend", "truth"), [(nn.ReLU, "healthy"), (nn.Sigmoid, "vanishing")])
def test_a_network_that_is_watched(tmp_path: Path, bend: type[nn.Module], truth: str) -> None:
    """Without config, without a validation split, without a second look."""
    torch.manual_seed(0)
    sizes = [20, *[32] * 6, 2]
    layers = [m for pair in itertools.pairwise(sizes) for m in (nn.Linear(*pair), bend())][:-1]
    model = nn.Sequential(*layers)
    inputs = torch.randn(256, 20)
    targets = (inputs[:, 0] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with dlexp.watch(model, tmp_path / "mine", every=5, tensorboard=False) as recorder:
        for _ in range(120):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss)
            optimizer.step()
    assert recorder.folder is not None
    found = of_run(recorder.folder)
    assert (found.primary, found.override) == (truth, [])
    if truth == "healthy":
        assert "Without loss/validation" in found.sentence


class Backbone(nn.Module):
    """Three frozen layers, two that learn, and one that nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        old = [m for _ in range(3) for m in (nn.Linear(20, 20), nn.ReLU())]
        self.old = nn.Sequential(*old).requires_grad_(False)
        self.new = nn.Sequential(nn.Linear(20, 20), nn.ReLU())
        self.unused, self.answer = nn.Linear(20, 20), nn.Linear(20, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.answer(self.new(self.old(x)))
        return answer


def test_a_frozen_backbone_that_is_watched(tmp_path: Path) -> None:
    """What the records say of it, by the reasons that the recorder writes."""
    torch.manual_seed(0)
    model, inputs = Backbone(), torch.randn(256, 20)
    targets = (inputs[:, 0] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with dlexp.watch(model, tmp_path / "mine", every=5, tensorboard=False) as recorder:
        for _ in range(120):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss)
            optimizer.step()
    e = Evidence.of_run(recorder.folder)  # type: ignore[arg-type]
    paths = [layer["path"] for layer in json.loads((recorder.folder / "summary.json").read_text())["layers"]]  # type: ignore[operator]
    assert e.fed is not None and e.absent is not None
    assert {p for p, x in zip(paths, e.absent, strict=True) if x} == {"unused"}
    assert {p for p, x in zip(paths, e.fed, strict=True) if x} == {"new.0", "answer"}
    assert [paths[i] for i in e.hidden] == ["old.0", "old.2", "old.4", "new.0"]
    assert [paths[i] for i in e.learning] == ["new.0"]
    assert of_run(recorder.folder).primary == "healthy"  # type: ignore[arg-type]


def test_reasons_are_those_of_the_recorder() -> None:
    """diagnose/ does not load the module that writes them."""
    assert (evidence.NO_GRADIENT, evidence.NOT_RUN) == (probes.NO_GRADIENT, probes.NOT_RUN)


def test_evidence_is_what_the_files_say(tmp_path: Path) -> None:
    """Looks, facts and the curve of a residual network, whose sums are no hidden layers."""
    made = run(tmp_path / "run", "model=residual_mlp model.depth=2 optimizer=adam train.max_steps=60")
    e, summary = Evidence.of_run(tmp_path / "run"), made.summary
    assert e.layers == tuple(layer["name"] for layer in summary["layers"])
    assert [e.layers[i] for i in e.streams] == [name for name in e.layers if name.endswith("_stream")]
    assert [e.layers[i] for i in e.hidden] == [n for n in e.layers[:-1] if not n.endswith("_stream")]
    first = json.loads((tmp_path / "run/records.jsonl").read_text().splitlines()[1])
    assert e.of("delta_rms")[0].tolist() == [first["delta_rms"][i] for i in e.hidden]
    assert e.look("distinct_rows", "first").tolist() == [1.0] * len(e.hidden)
    assert (e.look("displacement", "last") > 0).all()
    assert e.validation[-1] == summary["metrics"]["loss/validation"]
    assert e.chance == pytest.approx(np.log(10), rel=1e-2) and e.inputs == pytest.approx((0, 1), abs=1e-6)
    assert e.progress == pytest.approx(1 - e.last_loss / e.chance)  # type: ignore[operator]

"""Data sets are built once per process, and no run ever sees what another one did to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.build import kept
from dlexp.data import digits
from dlexp.data.dataset import Dataset, Split
from dlexp.report.load import Run


def _dataset(value: float = 0.0) -> Dataset:
    split = Split(torch.full((4, 2), value), torch.zeros(4, dtype=torch.int64))
    return Dataset(split, split, split, outputs=2)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    kept._kept.clear()
    yield
    kept._kept.clear()


def test_one_key_is_built_once() -> None:
    built: list[int] = []

    def build() -> Dataset:
        built.append(1)
        return _dataset()

    assert kept.once("a", build) is kept.once("a", build)
    assert kept.once("b", build) is not kept.once("a", build)
    assert len(built) == 2


@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_what_was_written_into_is_built_anew(part: str) -> None:
    first = kept.once("a", _dataset)
    getattr(first.test, part).split(2)[1].add_(1)  # as a layer that works in place on its batch
    second = kept.once("a", _dataset)
    assert second is not first
    assert not second.test.inputs.any()
    assert kept.once("a", _dataset) is second


def test_what_was_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 6 * 4 * 8  # three splits: inputs of 4 * 2 * 4 bytes, targets of 4 * 8
    monkeypatch.setattr(kept, "MOST", 2 * size)
    a, b = kept.once("a", _dataset), kept.once("b", _dataset)
    assert kept.once("a", _dataset) is a  # now b is the oldest
    c = kept.once("c", _dataset)  # two may stay beside it
    d = kept.once("d", _dataset)
    assert kept.once("d", _dataset) is d
    assert kept.once("c", _dataset) is c
    assert kept.once("a", _dataset) is a
    assert kept.once("b", _dataset) is not b


def test_the_last_one_is_kept_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 0)
    first = kept.once("a", _dataset)
    assert kept.once("a", _dataset) is first
    kept.once("b", _dataset)
    assert kept.once("a", _dataset) is not first


def test_what_cannot_be_built_is_not_kept() -> None:
    def fails() -> Dataset:
        raise ValueError

    with pytest.raises(ValueError):
        kept.once("a", fails)
    assert kept.once("a", _dataset).outputs == 2


def test_a_stamp_changes_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.csv"
    file.write_text("a")
    first = kept.stamp(str(file))
    monkeypatch.chdir(tmp_path)
    assert kept.stamp("my.csv") == first
    known = file.stat()
    other = tmp_path / "other"
    other.write_text("b")
    os.utime(other, ns=(known.st_atime_ns, known.st_mtime_ns))  # as old and as long as the first one
    other.replace(file)
    assert kept.stamp("my.csv") != first
    file.unlink()
    assert kept.stamp("my.csv") != first


def test_a_stamp_changes_with_each_file_of_a_folder(tmp_path: Path) -> None:
    inner = tmp_path / "cats" / "wild"
    inner.mkdir(parents=True)
    stamps = [kept.stamp(str(tmp_path))]
    (inner / "a.png").write_text("a")
    stamps.append(kept.stamp(str(tmp_path)))
    (inner / "a.png").write_text("ab")
    stamps.append(kept.stamp(str(tmp_path)))
    (inner / "a.png").rename(inner / "b.png")
    stamps.append(kept.stamp(str(tmp_path)))
    assert len(set(stamps)) == 4


def _run(folder: Path, *words: str) -> Run:
    words = (*words, "seed=3", "device=cpu", f"hydra.run.dir={folder}", "record.tensorboard=false")
    return dlexp.run(words, quiet=True)


RUNS = {
    "mlp": ["train.max_steps=4"],
    "cnn": ["model=cnn", "augmentation=shift", "normalization=batch", "train.max_steps=2"],
    "tokens": ["model=lstm", "data=recall", "train.max_steps=2"],
    "view": ["task=reconstruction", "train.max_steps=2"],
    "gan": ["model=gan", "data=ring", "task=adversarial", "train.max_steps=2"],
    "lookup": ["model=lookup", "data=gate", "data.standardize=none"],
    "stopping": ["data=wine", "stopping=early", "scheduler=plateau", "train.epochs=2"],
}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_run_is_the_same_with_data_that_was_kept(tmp_path: Path, words: list[str]) -> None:
    _run(tmp_path / "a", *words)
    before = dict(kept._kept)
    _run(tmp_path / "b", *words)
    assert len(before) == 1
    assert next(iter(kept._kept.values()))[0] is next(iter(before.values()))[0]  # nobody wrote into it
    kept._kept.clear()
    _run(tmp_path / "c", *words)
    for name in ("records.jsonl", "metrics.jsonl"):
        a, b, c = ((tmp_path / x / name).read_bytes() for x in "abc")
        assert a == b == c


def test_data_is_read_once_for_runs_that_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = digits.read
    monkeypatch.setattr(digits, "read", lambda: reads.append(1) or read())  # type: ignore[func-returns-value]
    short = ["train.max_steps=1", "record=off"]
    for n, word in enumerate(["model.depth=1", "optimizer.lr=0.01", "train.batch_size=8"]):
        _run(tmp_path / str(n), word, *short)
    assert len(reads) == 1
    for n, word in enumerate(["data.split_seed=1", "data=digits_noisy", "task=reconstruction"], start=3):
        _run(tmp_path / str(n), word, *short)
    assert len(reads) == 4


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "my.csv"
    words = [f"data.path={file}", "data=csv", "data.target=y", "train.max_steps=1", "train.batch_size=8"]
    file.write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    first = _run(tmp_path / "1", *words)
    file.write_text("a,b,y\n" + "".join(f"{i},1,{i % 3}\n" for i in range(40)))
    second = _run(tmp_path / "2", *words)
    assert first.summary["data"] == {"input_shape": [1], "outputs": 2, "vocabulary": None}
    assert second.summary["data"] == {"input_shape": [2], "outputs": 3, "vocabulary": None}


def test_data_of_ones_own_is_made_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept_not.py").write_text(
        "from dlexp.data import tables\nMADE = []\n"
        "def mine(validation, test, split_seed, standardize):\n    MADE.append(1)\n"
        "    return tables.iris(\n"
        "        validation=validation, test=test, split_seed=split_seed, standardize=standardize\n"
        "    )\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for n in range(2):
        _run(tmp_path / str(n), "data=iris", "data._target_=kept_not.mine", "train.max_steps=1")
    import kept_not  # type: ignore[import-not-found]

    assert len(kept_not.MADE) == 2
    assert not kept._kept


def test_a_network_that_works_in_place_on_its_inputs_spoils_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in_place.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, outputs):\n"
        "    return nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, outputs))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["train.max_steps=1"]
    _run(tmp_path / "a", *words)
    _run(tmp_path / "b", "model=custom", "model._target_=in_place.net", *words)
    _run(tmp_path / "c", *words)
    a, c = ((tmp_path / x / "metrics.jsonl").read_bytes() for x in "ac")
    assert a == c

"""torchvision's sets, from small files in their real formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from files import TEST, TRAIN, write_cifar10, write_garbage, write_mnist

from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

MISSING = (
    "{name} is not there; add data.download=true to fetch it (needs a network),"
    " or name the folder that has torchvision's files with data.root=PATH"
)
SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}


def build(*words: str) -> Dataset:
    """The data set that the words of a command line name."""
    return assemble(compose([*words, "train.batch_size=8"]), torch.device("cpu")).data


def shades(data: Dataset) -> list[int]:
    """The shade of the first pixel of all official training pictures, sorted."""
    both = torch.cat([data.train.inputs, data.validation.inputs])
    return sorted(round(x * 255) for x in both[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("word", ["mnist", "fashion_mnist"])
def test_mnist_and_its_kin(word: str, tmp_path: Path) -> None:
    """Pictures are (N, 1, 28, 28), shades 0 to 1; a share of the training set is held out."""
    write_mnist(tmp_path, SETS[word])
    data = build(f"data={word}", f"data.root={tmp_path}", "data.standardize=none", "data.validation=0.25")
    assert data.train.inputs.shape == (TRAIN - 30, 1, 28, 28)
    assert data.validation.inputs.shape == (30, 1, 28, 28)
    assert data.test.inputs.shape == (TEST, 1, 28, 28) and data.outputs == 10
    assert shades(data) == list(range(TRAIN))
    assert data.test.inputs[7].unique().tolist() == pytest.approx([7 / 255])
    assert data.test.targets.tolist() == [i % 10 for i in range(TEST)]
    labelled = [round(x * 255) % 10 for x in data.train.inputs[:, 0, 0, 0].tolist()]
    assert data.train.targets.tolist() == labelled


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are (N, 3, 32, 32), the channels in the order red, green, blue."""
    write_cifar10(tmp_path, monkeypatch)
    data = build("data=cifar10", f"data.root={tmp_path}", "data.standardize=none")
    assert data.train.inputs.shape == (TRAIN - 12, 3, 32, 32)
    assert data.validation.inputs.shape == (12, 3, 32, 32)
    assert data.test.inputs.shape == (TEST, 3, 32, 32) and data.outputs == 10
    assert data.train.inputs.is_contiguous()
    assert shades(data) == list(range(TRAIN))
    red, green, blue = data.test.inputs[20]
    assert red.unique().tolist() == green.unique().tolist() == pytest.approx([20 / 255])
    assert blue.unique().tolist() == pytest.approx([10 / 255])
    assert data.test.targets.tolist() == [i % 10 for i in range(TEST)]


def test_split_seed_decides_who_is_held_out(tmp_path: Path) -> None:
    """The same split_seed holds out the same pictures, another one others; the test set stays."""
    write_mnist(tmp_path)
    words = ("data=mnist", f"data.root={tmp_path}", "data.standardize=none")
    first, same, other = build(*words), build(*words, "seed=5"), build(*words, "data.split_seed=1")
    assert torch.equal(first.validation.inputs, same.validation.inputs)
    assert not torch.equal(first.validation.inputs, other.validation.inputs)
    assert torch.equal(first.test.inputs, other.test.inputs)


def test_channels_are_standardized_by_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three channels of the training split gets mean 0 and deviation 1."""
    write_cifar10(tmp_path, monkeypatch)
    inputs = build("data=cifar10", f"data.root={tmp_path}").train.inputs.double()
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert (inputs.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize(("word", "name"), SETS.items())
def test_missing_files_are_told_with_how_to_get_them(word: str, name: str, tmp_path: Path) -> None:
    """Without files there is one line: where was looked, and both ways out."""
    with pytest.raises(UserError) as caught:
        build(f"data={word}", f"data.root={tmp_path / 'no'}")
    assert caught.value.lines == (f"data.root={tmp_path / 'no'}: {MISSING.format(name=name)}",)
    assert not (tmp_path / "no").exists()


def test_a_root_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^data\.root=\S+/file: is a file; allowed: a folder$"):
        build("data=mnist", f"data.root={tmp_path / 'file'}")


@pytest.mark.parametrize(("word", "name"), SETS.items())
def test_files_that_are_no_such_set_are_told(word: str, name: str, tmp_path: Path) -> None:
    """Files with the right names and wrong contents: one line with the folder, the set and a reason."""
    write_garbage(tmp_path)
    with pytest.raises(UserError) as caught:
        build(f"data={word}", f"data.root={tmp_path}")
    (line,) = caught.value.lines
    start = f"data.root={tmp_path}: cannot be read as {name}: "
    assert line.startswith(start)
    assert len(line) > len(start), "the reason is missing"


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: the key, the set, the folder and what went wrong."""
    from torchvision.datasets import MNIST

    def fail(_set: object) -> None:
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(MNIST, "download", fail)
    with pytest.raises(UserError) as caught:
        build("data=mnist", f"data.root={tmp_path}", "data.download=true")
    line = f"data.download=true: MNIST could not be fetched into {tmp_path}: no network"
    assert caught.value.lines == (line,)


def test_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DLEXP_DATA names the folder of the files where data.root does not."""
    write_mnist(tmp_path)
    monkeypatch.setenv("DLEXP_DATA", str(tmp_path))
    assert len(build("data=mnist").test) == TEST


def test_train_dev_is_held_out_of_the_official_training_set(tmp_path: Path) -> None:
    """Three disjoint parts of the training pictures, and the official test set as it was."""
    write_mnist(tmp_path)
    words = ("data=mnist", f"data.root={tmp_path}", "data.standardize=none")
    data = build(*words, "data.validation=0.25", "data.train_dev=0.1")
    assert data.train_dev is not None and build(*words).train_dev is None
    parts = [data.train, data.validation, data.train_dev]
    assert [len(part) for part in parts] == [TRAIN - 42, 30, 12]
    assert sorted(round(x * 255) for p in parts for x in p.inputs[:, 0, 0, 0].tolist()) == list(range(TRAIN))
    assert len(data.test) == TEST

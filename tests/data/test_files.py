"""The user's own files become data sets, and whatever is wrong with them is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dlexp
from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.data import files
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

SPLIT: dict[str, Any] = {"validation": 0.2, "test": 0.2, "split_seed": 0, "standardize": "none"}
N = 30


def csv(path: Path | str | None, **options: Any) -> Dataset:
    ours = {"target": "y", "kind": "auto", "ignore": [], "separator": "comma", "standardize_targets": False}
    return files.csv(**{"path": path and str(path), **ours, **SPLIT, **options})


def npz(path: Path | str | None, **options: Any) -> Dataset:
    ours = {"x": None, "y": None, "kind": "auto", "standardize_targets": False}
    return files.npz(**{"path": path and str(path), **ours, **SPLIT, **options})


def image_folder(path: Path | str | None, **options: Any) -> Dataset:
    return files.image_folder(**{"path": path and str(path), "size": 4, "colour": "rgb", **SPLIT, **options})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(path: Path, targets: list[object], names: str = "a,b,y") -> Path:
    """Row i is i, i / 2 and the target i."""
    return write(path, names, *(f"{i},{i / 2},{y}" for i, y in enumerate(targets)))


def arrays(path: Path, **named: Any) -> Path:
    np.savez(path, **named)
    return path


def pictures(root: Path, **classes: int) -> Path:
    """A folder for each class; picture i of class k is filled with red 10 k + i, green 100, blue 200."""
    for k, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (6, 3), (10 * k + i, 100, 200)).save(root / name / f"{i}.png")
    return root


def by_row(data: Dataset) -> dict[float, Any]:
    """The first input of each sample of all splits -> its target."""
    parts = [data.train, data.validation, data.test]
    found = {float(p.inputs[i].flatten()[0]): p.targets[i].tolist() for p in parts for i in range(len(p))}
    assert len(found) == sum(map(len, parts))
    return found


def line(error: pytest.ExceptionInfo[UserError]) -> str:
    """The one line of an error."""
    (only,) = error.value.lines
    assert "\n" not in only
    return only


def test_text_names_classes_in_sorted_order(tmp_path: Path) -> None:
    """pear, apple, plum become 1, 0, 2, whatever comes first in the file."""
    fruit = ["pear", "apple", "plum"] * (N // 3)
    data = csv(table(tmp_path / "t.csv", fruit))
    assert data.task == "classification" and data.outputs == 3 and data.input_shape == (2,)
    assert data.facts["classes"] == ["apple", "pear", "plum"]
    assert by_row(data) == {i: [1, 0, 2][i % 3] for i in range(N)}
    assert data.train.inputs.dtype == torch.float32 and data.train.targets.dtype == torch.int64
    assert torch.equal(data.train.inputs[:, 1], data.train.inputs[:, 0] / 2)


def test_words_that_mean_missing_elsewhere_are_classes_here(tmp_path: Path) -> None:
    """None and NA are names like others."""
    data = csv(table(tmp_path / "t.csv", ["None", "NA", "yes"] * 10))
    assert data.facts["classes"] == ["NA", "None", "yes"]


@pytest.mark.parametrize(
    ("targets", "kind", "task", "classes"),
    [
        ([0, 1] * 15, "auto", "classification", [0, 1]),
        ([10, 9, 2] * 10, "auto", "classification", [2, 9, 10]),  # as numbers, not as text
        (["1.0", "2.0"] * 15, "auto", "classification", [1, 2]),
        ([-1, 1] * 15, "auto", "classification", [-1, 1]),
        (list(range(30)), "auto", "regression", None),
        ([i % 20 for i in range(30)], "auto", "classification", list(range(20))),
        ([i % 21 for i in range(30)], "auto", "regression", None),
        ([0.5, 1.5] * 15, "auto", "regression", None),
        ([0, 1] * 15, "regression", "regression", None),
        (list(range(30)), "classification", "classification", list(range(30))),
        ([1, 2, "x"] * 10, "classification", "classification", ["1", "2", "x"]),
        ([20250101, 20250102] * 15, "auto", "classification", [20250101, 20250102]),  # beyond float32
    ],
)
def test_what_targets_are(
    targets: list[object], kind: str, task: str, classes: list[object] | None, tmp_path: Path
) -> None:
    """Text and up to 20 whole numbers are classes, unless data.kind says otherwise."""
    data = csv(table(tmp_path / "t.csv", targets), kind=kind)
    assert data.task == task and data.facts.get("classes") == classes
    assert data.outputs == (len(classes) if classes else 1)
    if classes is None:
        assert by_row(data) == {i: [float(y)] for i, y in enumerate(targets)}  # type: ignore[arg-type]
    else:
        values = [y if isinstance(classes[0], str) else float(str(y)) for y in targets]
        named = [str(y) if isinstance(classes[0], str) else int(y) for y in values]  # type: ignore[call-overload]
        assert by_row(data) == {i: classes.index(y) for i, y in enumerate(named)}


def test_columns_can_be_left_out_and_separated_otherwise(tmp_path: Path) -> None:
    """The target may stand anywhere; a byte order mark, spaces and blank lines do no harm."""
    path = tmp_path / "t.csv"
    rows = [f"{i};{'yes' if i % 2 else 'no'}; {i + 0.5}; anna " for i in range(N)]
    path.write_text("\ufeffid;y;b;name\n" + "\n".join(rows) + "\n\n", encoding="utf-8")
    data = csv(path, separator="semicolon", ignore=["id", "name"])
    assert by_row(data) == {i + 0.5: i % 2 for i in range(N)}
    tabs = write(tmp_path / "t.tsv", "1\t2", *(f"{i}\t{i / 4}" for i in range(N)))
    assert by_row(csv(tabs, target=2, separator="tab")) == {i: [i / 4] for i in range(N)}


def test_targets_of_a_regression_can_be_standardized(tmp_path: Path) -> None:
    """By the training split, and the facts lead back."""
    path = table(tmp_path / "t.csv", [3.0 * i + 100.5 for i in range(N)])
    data = csv(path, standardize_targets=True)
    assert abs(data.train.targets.mean()) < 1e-6
    back = data.test.targets * data.facts["target_std"][0] + data.facts["target_mean"][0]
    torch.testing.assert_close(back, 3 * data.test.inputs[:, :1] + 100.5)


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        (["a,y", "1,2"], {"target": "z"}, "data.target=z: no column of {}; allowed: a, y"),
        (
            ["a,y", "1,2"],
            {"target": None},
            "data.target=null: name what is to be predicted; allowed: a, y",
        ),
        (
            ["a;y", "1;2"],
            {},
            (
                "data.target=y: no column of {}; allowed: a;y; nothing in it is separated by a comma:"
                " type data.separator=semicolon"
            ),
        ),
        (
            ["a|y", "1|2"],
            {},
            (
                "data.target=y: no column of {}; allowed: a|y; nothing in it is separated by a comma:"
                " data.separator is comma, semicolon, tab"
            ),
        ),
        (
            ["a, b,a,y", "1,2,3,4"],
            {},
            "data.path={}: two columns are called a; each needs a name of its own",
        ),
        (["y,y", "1,2"], {}, "data.path={}: two columns are called y; each needs a name of its own"),
        (["a,b,y", "1,2,3"], {"ignore": ["c"]}, "data.ignore=[c]: no input column of {}; allowed: a, b"),
        (["a,b,y", "1,2,3"], {"ignore": ["y"]}, "data.ignore=[y]: no input column of {}; allowed: a, b"),
        (["a,y", "1,2"], {"ignore": ["a"]}, "data.path={}: has no column for the inputs beside the target"),
        (["a,y"], {}, "data.path={}: has no row below the names"),
        (
            [",a,y", "0,1,2"],
            {},
            (
                "data.path={}: column 1 has no name; give it one, or leave it out with"
                " 'data.ignore=[\"Unnamed: 0\"]'"
            ),
        ),
        (
            ["a,y", "1,2", "x,3"],
            {},
            (
                "data.path={}: column a, row 2 below the names, is 'x'; allowed: finite numbers,"
                " or data.ignore=[a]"
            ),
        ),
        (
            ["a,y", "1,2", ",3"],
            {},
            "data.path={}: column a, row 2 below the names, is empty or NaN; allowed: finite numbers",
        ),
        (
            ["a,y", "NaN,2"],
            {},
            "data.path={}: column a, row 1 below the names, is empty or NaN; allowed: finite numbers",
        ),
        (
            ["a,y", "1,2", "inf,2"],
            {},
            "data.path={}: column a, row 2 below the names, is inf; allowed: finite numbers",
        ),
        (
            ["a,y", "1,2", "1e300,2"],
            {},
            "data.path={}: column a, row 2 below the names, is 1e+300; allowed: finite numbers",
        ),
        (
            ["a,y", "1,2", "1,"],
            {},
            (
                "data.path={}: column y, row 2 below the names, is empty; allowed: a number, or the name of"
                " a class"
            ),
        ),
        (
            ["a,y", "1,1", "1,"],
            {},
            (
                "data.path={}: column y, row 2 below the names, is empty; allowed: a number, or the name of"
                " a class; data.kind=multi_label takes it for an unknown answer"
            ),
        ),
        (
            ["a,y", "1,0", "1,nan"],
            {},
            (
                "data.path={}: column y, row 2 below the names, is empty or NaN; allowed: finite numbers;"
                " data.kind=multi_label takes it for an unknown answer"
            ),
        ),
        (
            ["a,y", "1,0", "1,dog"],
            {"kind": "multi_label"},
            (
                "data.kind=multi_label: column y, row 2 below the names, is 'dog'; allowed: 0, 1,"
                " NaN (unknown)"
            ),
        ),
        (
            ["a,y", "1,", "1,"],
            {"kind": "multi_label"},
            "data.path={}: answer 0 is unknown in all samples; nothing to learn",
        ),
        (
            ["a,y", "1,2.5", "1,nan"],
            {},
            "data.path={}: column y, row 2 below the names, is empty or NaN; allowed: finite numbers",
        ),
        (
            ["a,y", "1,2", "1,?"],
            {},
            (
                "data.path={}: column y, row 2 below the names, is '?'; allowed: finite numbers,"
                " or data.kind=classification to take each for a class"
            ),
        ),
        (
            ["a,y", "1,cat", "1,dog"],
            {"kind": "regression"},
            "data.path={}: column y, row 1 below the names, is 'cat'; allowed: finite numbers",
        ),
        (
            ["a,y", "1,1", "1,2.5"],
            {"kind": "classification"},
            "data.kind=classification: column y, row 2 below the names, is 2.5; allowed: whole numbers, text",
        ),
        (["a,y", "1,dog", "2,dog"], {}, "data.path={}: all samples are of one class, dog; needs two or more"),
        (["a,y", "1,7", "2,7"], {}, "data.path={}: all samples are of one class, 7; needs two or more"),
        (
            ["a,y", "1,0.5", "2,0.5"],
            {},
            "data.path={}: a target is [0.5] in all samples; nothing to learn",
        ),
    ],
)
def test_what_is_wrong_with_a_table(
    lines: list[str], options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """The key, the place and what is allowed."""
    path = write(tmp_path / "t.csv", *lines)
    with pytest.raises(UserError) as caught:
        csv(path, **options)
    assert line(caught) == expected.format(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,y\n1,2\n1,2,3\n",
        b"a,y\n1,2,3\n1,2,3\n",
        b"a,y\n1,caf\xe9\n",
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
    ],
    ids=["empty", "a long row", "long rows", "latin-1", "a picture"],
)
def test_a_file_that_is_no_table(content: bytes, tmp_path: Path) -> None:
    """Its reason follows; no column is guessed or lost."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        csv(path)
    start = f"data.path={path}: cannot be read as CSV: "
    assert line(caught).startswith(start) and len(line(caught)) > len(start)
    assert line(caught).endswith("; save it as UTF-8") == (b"\xe9" in content or b"\xff" in content)


@pytest.mark.parametrize(
    ("read", "example", "kind"),
    [(csv, "my.csv", "file"), (npz, "my.npz", "file"), (image_folder, "my_pictures", "folder")],
)
def test_missing_files(read: Any, example: str, kind: str, tmp_path: Path) -> None:
    """No path, a path to nothing, and a path to the wrong thing."""
    (tmp_path / "a_file").touch()
    wrong = tmp_path if kind == "file" else tmp_path / "a_file"
    for path, expected in (
        (None, f"data.path=null: name the {kind}, for example data.path={example}"),
        (tmp_path / "no", f"data.path={tmp_path / 'no'}: no such {kind}"),
        (wrong, f"data.path={wrong}: is no {kind}"),
    ):
        with pytest.raises(UserError) as caught:
            read(path)
        assert line(caught) == expected


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the user's own folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    table(tmp_path / "t.csv", ["u", "v"] * 15)
    assert csv("~/t.csv").outputs == 2


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("inputs", "targets"), {}),
        (("x", "y"), {}),
        (("X", "y"), {}),
        (("pixels", "label"), {"x": "pixels", "y": "label"}),
    ],
)
def test_arrays_by_their_names(names: tuple[str, str], options: dict[str, Any], tmp_path: Path) -> None:
    """The usual names need not be typed; bytes become float32, whole numbers classes."""
    x = np.arange(N * 12, dtype=np.uint8).reshape(N, 3, 2, 2) // 12 * 8
    y = np.arange(N) % 4
    path = arrays(tmp_path / "t.npz", **dict(zip(names, (x, y), strict=True)), other=y)
    data = npz(path, **options)
    assert data.input_shape == (3, 2, 2) and data.outputs == 4 and data.task == "classification"
    assert data.train.inputs.dtype == torch.float32
    both = torch.cat([p.inputs.flatten(1) for p in (data.train, data.validation, data.test)])
    assert sorted(both.tolist()) == sorted(x.reshape(N, -1).astype(float).tolist())


@pytest.mark.parametrize(
    ("y", "kind", "task", "outputs"),
    [
        (np.arange(N) % 3, "auto", "classification", 3),
        ((np.arange(N) % 3)[:, None], "auto", "classification", 3),
        (np.arange(N) % 2 == 0, "auto", "classification", 2),
        (np.array(["b", "a"] * 15), "auto", "classification", 2),
        (np.arange(N) / 7, "auto", "regression", 1),
        (np.arange(2.0 * N).reshape(N, 2), "auto", "regression", 2),
        (np.arange(N) % 3, "regression", "regression", 1),
    ],
)
def test_what_target_arrays_are(y: np.ndarray, kind: str, task: str, outputs: int, tmp_path: Path) -> None:
    """(N,) and (N, 1) are alike; (N, K) numbers are K answers."""
    data = npz(arrays(tmp_path / "t.npz", x=np.arange(N, dtype=np.float64)[:, None], y=y), kind=kind)
    assert data.task == task and data.outputs == outputs
    found = by_row(data)
    if task == "classification":
        classes = sorted(set(y.ravel().tolist()))
        assert found == {i: classes.index(v) for i, v in enumerate(y.ravel().tolist())}
    else:
        assert found == {i: pytest.approx(np.atleast_1d(v).tolist()) for i, v in enumerate(y)}


SAVED = "allowed: numbers or text, by numpy.savez('my.npz', x=..., y=...)"
X = np.ones((4, 2))
Y = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("named", "options", "expected"),
    [
        ({"a": X, "y": Y}, {}, "data.x=null: no array called x, X, inputs in {}; allowed: a, y"),
        ({"x": X, "b": Y}, {}, "data.y=null: no array called y, Y, targets in {}; allowed: x, b"),
        ({"x": X, "y": Y}, {"x": "z"}, "data.x=z: no array in {}; allowed: x, y"),
        (
            {"x": Y, "y": Y},
            {},
            (
                "data.path={}: inputs are (4,); allowed: (samples, features, ...);"
                " inputs.reshape(-1, 1) makes one feature"
            ),
        ),
        ({}, {}, "data.x=null: no array called x, X, inputs in {}; it has none at all"),
        (
            {"x": X, "y": np.array([[0, 1], [1, np.nan], [1, 0], [0, 0]])},
            {},
            (
                "data.path={}: targets[1, 1] is empty or NaN; allowed: finite numbers;"
                " data.kind=multi_label takes it for an unknown answer"
            ),
        ),
        (
            {"x": X, "y": np.array([0.5, 1, np.nan, 1])},
            {},
            "data.path={}: targets[2] is empty or NaN; allowed: finite numbers",
        ),
        ({"x": X[:0], "y": Y[:0]}, {}, "data.path={}: inputs are (0, 2); allowed: (samples, features, ...)"),
        ({"x": X, "y": Y[:3]}, {}, "data.path={}: targets are (3,) for inputs (4, 2); allowed: (4,), (4, K)"),
        (
            {"x": X, "y": np.ones((4, 2, 2))},
            {},
            "data.path={}: targets are (4, 2, 2) for inputs (4, 2); allowed: (4,), (4, K)",
        ),
        ({"x": X, "y": 3}, {}, "data.path={}: targets are () for inputs (4, 2); allowed: (4,), (4, K)"),
        (
            {"x": np.array([[1, 2], [3, np.nan]]), "y": Y[:2]},
            {},
            "data.path={}: inputs[1, 1] is empty or NaN; allowed: finite numbers",
        ),
        (
            {"x": np.array([["1", "2"], ["3", "four"]]), "y": Y[:2]},
            {},
            "data.path={}: inputs[1, 1] is 'four'; allowed: finite numbers",
        ),
        ({"x": X * 1j, "y": Y}, {}, "data.path={}: inputs[0, 0] is '1j'; allowed: finite numbers"),
        (
            {"x": X, "y": np.array([0.5, 1, np.inf, 1])},
            {},
            "data.path={}: targets[2] is inf; allowed: finite numbers",
        ),
        ({"x": X, "y": Y * 0}, {}, "data.path={}: all samples are of one class, 0; needs two or more"),
        (
            {"x": X, "y": X},
            {"kind": "classification"},
            "data.kind=classification: targets are (4, 2); allowed: (4,)",
        ),
        (
            {"x": np.array([[None, {}]]), "y": Y[:1]},
            {},
            f"data.path={{}}: has Python objects in it; {SAVED}",
        ),
    ],
)
def test_what_is_wrong_with_arrays(
    named: dict[str, Any], options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    """The key, the place and what is allowed; objects are never unpickled."""
    path = arrays(tmp_path / "t.npz", **named)
    with pytest.raises(UserError) as caught:
        npz(path, **options)
    assert line(caught) == expected.format(path)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    """Nothing, text, a single array, and half an archive."""
    whole = arrays(tmp_path / "whole.npz", x=X, y=Y).read_bytes()
    np.save(tmp_path / "one.npy", X)
    one = (tmp_path / "one.npy").read_bytes()
    path = tmp_path / "t.npz"
    for content in (b"", b"a,b\n1,2\n", one, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            npz(path)
        assert line(caught) == f"data.path={path}: cannot be read as arrays; {SAVED}"


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    """Classes in sorted order, channels first, shades 0 to 1, every picture with its own class."""
    data = image_folder(pictures(tmp_path / "p", ant=10, bee=10, cow=10), size=5)
    assert (
        data.input_shape == (3, 5, 5) and data.outputs == 3 and data.facts["classes"] == ["ant", "bee", "cow"]
    )
    assert {round(x * 255): k for x, k in by_row(data).items()} == {i: i // 10 for i in range(30)}
    first = data.train.inputs[0]
    assert first[1].unique().tolist() == pytest.approx([100 / 255])
    assert first[2].unique().tolist() == pytest.approx([200 / 255])
    assert data.train.inputs.is_contiguous()


def test_pictures_can_be_grey(tmp_path: Path) -> None:
    """ITU-R 601: 0.299 red + 0.587 green + 0.114 blue."""
    data = image_folder(pictures(tmp_path / "p", ant=10, bee=10), colour="grey")
    assert data.input_shape == (1, 4, 4)
    shades = [0.299 * i + 0.587 * 100 + 0.114 * 200 for i in range(20)]
    assert sorted(x * 255 for x in by_row_all(data)) == pytest.approx(shades, abs=1)


def by_row_all(data: Dataset) -> list[float]:
    """The first pixel of every picture; equal ones stay."""
    return [float(x) for p in (data.train, data.validation, data.test) for x in p.inputs[:, 0, 0, 0]]


def test_pictures_are_resized_whole(tmp_path: Path) -> None:
    """A white left half stays a white left half."""
    for name in ("u", "v"):
        (tmp_path / name).mkdir()
        for i in range(5):
            picture = Image.new("L", (40, 8), 0)
            picture.paste(255, (0, 0, 20, 8))
            picture.save(tmp_path / name / f"{i}.png")
    inputs = image_folder(tmp_path, size=4, colour="grey").train.inputs
    assert inputs[0, 0, :, 0].tolist() == [1.0] * 4 and inputs[0, 0, :, 3].tolist() == [0.0] * 4


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    """No class, one class, a class without pictures, a picture that is none."""
    for name in ("none", "few"):
        (tmp_path / name).mkdir()
    (tmp_path / "few" / "ant").mkdir()
    one, bad = pictures(tmp_path / "one", ant=3), pictures(tmp_path / "bad", ant=3, bee=3)
    (bad / "bee" / "1.png").write_bytes(b"no picture")
    for path, expected in (
        (tmp_path / "none", "needs a folder of pictures for each class: "),
        (tmp_path / "few", "needs a folder of pictures for each class: "),
        (one, "all samples are of one class, ant; needs two or more"),
        (bad, f"{bad / 'bee' / '1.png'} cannot be read as a picture"),
    ):
        with pytest.raises(UserError) as caught:
            image_folder(path)
        assert line(caught).startswith(f"data.path={path}: {expected}")


def test_runs_on_own_files(tmp_path: Path) -> None:
    """From the words of a command line to a finished run, for each kind of file."""
    table(tmp_path / "t.csv", ["u", "v"] * 15)
    arrays(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(N, 2, 3)), y=np.arange(N) / 7)
    pictures(tmp_path / "p", ant=10, bee=10)
    for words in (
        ["data=csv", f"data.path={tmp_path / 't.csv'}", "data.target=y", "data.ignore=[b]"],
        ["data=npz", f"data.path={tmp_path / 't.npz'}"],
        ["data=image_folder", f"data.path={tmp_path / 'p'}", "data.size=6", "data.train_dev=0.1"],
    ):
        words += ["train.max_steps=2", "train.batch_size=4", f"outputs={tmp_path / 'runs'}"]
        assert dlexp.run(words, quiet=True).summary["status"] == "finished"
    data = assemble(compose([*words, "data.colour=grey"]), torch.device("cpu")).data
    assert data.input_shape == (1, 6, 6) and data.train_dev is not None


def test_one_class_in_the_training_split_is_refused(tmp_path: Path) -> None:
    """Where the only sample of the other class is held out; which one that is hangs on data.split_seed."""
    rare = [int(i == 5) for i in range(N)]
    path, arrays_path = table(tmp_path / "t.csv", rare), tmp_path / "t.npz"
    arrays(arrays_path, x=np.arange(N)[:, None], y=np.array(rare))
    folder = pictures(tmp_path / "p", ant=N - 1, bee=1)
    refused = 0
    for seed in range(12):
        for read, place, name in ((csv, path, 0), (npz, arrays_path, 0), (image_folder, folder, "ant")):
            try:
                assert len(read(place, split_seed=seed).train.targets.unique()) == 2
            except UserError as error:
                refused += 1
                assert str(error) == (
                    f"data.path={place}: all samples of the training split (18) are of one class, {name};"
                    " needs two or more: try another data.split_seed, or add samples"
                )
    assert 3 < refused < 33
    unknown = [0.0 if i == 5 else np.nan for i in range(N)]
    arrays(arrays_path, x=np.arange(N)[:, None], y=np.array([[1, y] for y in unknown]))
    texts = set()
    for seed in range(12):
        try:
            npz(arrays_path, kind="multi_label", split_seed=seed)
        except UserError as error:
            texts |= set(error.lines)
    ending = "answer 1 is unknown in all samples of the training split; nothing to learn"
    assert texts == {f"data.path={arrays_path}: {ending}"}


@pytest.mark.parametrize(
    ("y", "kind", "expected"),
    [
        (np.arange(N) % 25, "auto", "25 different whole numbers as targets are taken for numbers;"),
        (np.eye(2)[np.arange(N) % 2], "auto", "targets of 0 and 1 in 2 columns are taken for numbers;"),
        (np.arange(N) % 25, "regression", None),
        (np.arange(N), "auto", None),  # no two alike: no classes
        (np.arange(N) % 25 + 0.5, "auto", None),
        (np.arange(2.0 * N).reshape(N, 2), "auto", None),
        (np.arange(N) % 3, "auto", None),
    ],
)
def test_a_guess_that_may_be_wrong_is_told(
    y: np.ndarray, kind: str, expected: str | None, tmp_path: Path
) -> None:
    """With the word that turns it round."""
    data = npz(arrays(tmp_path / "t.npz", x=np.arange(N)[:, None], y=y), kind=kind)
    remark = data.facts.get("remark")
    if expected is None:
        assert remark is None
        return
    assert remark.startswith(expected)
    other = remark.partition("data.kind=")[2].split()[0]
    assert npz(tmp_path / "t.npz", kind=other).task == other != data.task


@pytest.mark.parametrize(
    ("shape", "told"), [((8, 9, 3), True), ((8, 9, 1), True), ((3, 8, 9), False), ((1, 4, 4), False)]
)
def test_pictures_with_channels_last_are_told(shape: tuple[int, ...], told: bool, tmp_path: Path) -> None:
    """What to write instead; beside another remark, if there is one."""
    x = np.random.default_rng(0).random((N, *shape))
    for y, before in ((np.arange(N) % 3, ""), (np.arange(N) % 25, "25 different whole numbers")):
        remark = str(npz(arrays(tmp_path / "t.npz", x=x, y=y)).facts.get("remark", ""))
        assert remark.startswith(before) and remark.endswith("save inputs.transpose(0, 3, 1, 2)") == told


def test_the_heading_has_the_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of its own, only where there is one."""
    for modulus, told in ((25, True), (3, False)):
        path = table(tmp_path / "t.csv", [i % modulus for i in range(N)])
        words = ["data=csv", f"data.path={path}", "data.target=y", "train.batch_size=4", "train.max_steps=1"]
        dlexp.run([*words, f"outputs={tmp_path / 'out'}"])
        assert ("\nremark    25 different whole numbers" in capsys.readouterr().out) == told


def test_one_answer_of_a_table_may_be_unknown(tmp_path: Path) -> None:
    """An empty cell, or nan."""
    data = csv(table(tmp_path / "t.csv", ["", "nan", 0, 1, 1] * 6), kind="multi_label")
    found = by_row(data)
    assert data.task == "multi_label" and data.outputs == 1
    assert [found[i] for i in (2, 3, 4)] == [[0], [1], [1]]
    assert all(np.isnan(found[i][0]) for i in (0, 1))


@pytest.mark.parametrize(("word", "kind"), [("csv", "file"), ("npz", "file"), ("image_folder", "folder")])
def test_the_word_alone_says_what_is_missing(word: str, kind: str) -> None:
    """data=csv without a path is one line, from the command line too."""
    with pytest.raises(UserError, match=f"^data.path=null: name the {kind}, for example data.path=my"):
        assemble(compose([f"data={word}"]), torch.device("cpu"))


def test_many_answers_some_unknown(tmp_path: Path) -> None:
    """0 or 1 for each question, NaN where nobody knows: trained and judged on what is known."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((300, 4)).astype(np.float32)
    y = (x[:, :3] > 0).astype(np.float32)
    y[draw.random(y.shape) < 0.5] = np.nan
    np.savez(tmp_path / "my.npz", inputs=x, targets=y)
    words = ["data=npz", f"data.path={tmp_path / 'my.npz'}", "data.kind=multi_label", "model=multi_head"]
    words += ["train.batch_size=20", "train.epochs=20", "optimizer=adam", f"outputs={tmp_path / 'out'}"]
    run = dlexp.run(words, quiet=True)
    assert run.summary["config"]["task"] == "multi_label" and run.summary["layers"][-1]["shape"][0] == 1
    assert run.summary["metrics"]["accuracy/test"] > 0.85
    y[7, 2] = 0.5
    np.savez(tmp_path / "my.npz", inputs=x, targets=y)
    with pytest.raises(
        UserError, match=r"^data.kind=multi_label: targets\[7, 2\] is 0.5; allowed: 0, 1, NaN"
    ):
        dlexp.run(words, quiet=True)

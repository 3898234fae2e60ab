"""The user's own data: a table in a CSV file, arrays in an .npz file, a folder of pictures for each class.

N samples, F features, K targets, C channels, H = W pixels on a side.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split
from dlexp.data.tables import with_standardized_targets
from dlexp.errors import UserError

FEW = 20  # so many different whole numbers, or fewer, are classes unless the user says otherwise
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
ARRAYS = {"x": ("x", "X", "inputs"), "y": ("y", "Y", "targets")}  # names that need not be typed
COLOURS = {"grey": "L", "rgb": "RGB"}  # as PIL calls them

Where = Callable[[Any], str]  # the index of a value -> words for its place in the file


def csv(
    *,
    path: str | None,
    target: str | int | None,
    kind: str,
    ignore: Sequence[str | int],
    separator: str,
    standardize_targets: bool,
    **shares: Any,
) -> Dataset:
    """A table whose first line has the names of its columns; all but the target are inputs (N, F).

    Args:
        target: the column to be predicted.
        kind: see `_dataset`.
        ignore: columns that are left out.
        separator: a name in `SEPARATORS`.
        standardize_targets: of a regression.
        shares: as `dataset.divide` has them.

    Raises:
        UserError: the file is not there or cannot be read, a column is missing, a value is no number.
    """
    file = _existing(path, "my.csv")
    table = _read_csv(file, str(target), SEPARATORS[separator])
    names = list(table.columns)
    if target is None or str(target) not in names:
        single = f"; nothing in it is separated by a {separator}: {_separated(names[0])}"
        wrong = (
            f"{target}: no column of {file}" if target is not None else "null: name what is to be predicted"
        )
        raise UserError(f"data.target={wrong}; allowed: {_listed(names)}{single if len(names) == 1 else ''}")
    left_out = [str(name) for name in ignore]
    inputs = [name for name in names if name != str(target)]
    for name in left_out:
        if name not in inputs:
            raise UserError(f"data.ignore=[{name}]: no input column of {file}; allowed: {_listed(inputs)}")
    inputs = [name for name in inputs if name not in left_out]
    if not inputs or not len(table):
        lacking = "column for the inputs beside the target" if not inputs else "row below the names"
        raise UserError(f"data.path={file}: has no {lacking}")
    for name in inputs:
        if name.startswith("Unnamed: "):  # what pandas calls them; often the index that it has written
            raise UserError(
                f"data.path={file}: column {names.index(name) + 1} has no name; give it one, or leave it"
                f" out with 'data.ignore=[\"{name}\"]'"
            )
    columns = [
        _numbers(table[n].to_numpy(), file, _in_column(n), hint=f", or data.ignore=[{n}]") for n in inputs
    ]
    known = np.char.strip(table[str(target)].fillna("").to_numpy(dtype=np.str_))
    if (empty := np.flatnonzero(known == "")).size:
        if kind != "multi_label":
            hint = _unknown_answers(known[known != ""])
            raise UserError(
                f"data.path={file}: {_in_column(str(target))(empty)} is empty; allowed: a number, or the name"
                f" of a class{hint}"
            )
        known = np.where(known == "", "nan", known)
    return _dataset(
        np.column_stack(columns), known, file, _in_column(str(target)), kind, standardize_targets, shares
    )


def npz(
    *,
    path: str | None,
    x: str | None,
    y: str | None,
    kind: str,
    standardize_targets: bool,
    **shares: Any,
) -> Dataset:
    """Two arrays of a file that numpy.savez wrote: inputs (N, ...) and targets (N,) or (N, K).

    Args:
        x, y: names of the arrays of inputs and targets; None: one of `ARRAYS`.
        kind, standardize_targets, shares: as for `csv`.

    Raises:
        UserError: the file is not there or cannot be read, an array is missing or of a wrong shape, a
            value is no number.
    """
    file = _existing(path, "my.npz")
    inputs, targets = _read_npz(file, {"x": x, "y": y})
    if inputs.ndim < 2 or inputs.size == 0:
        hint = "; inputs.reshape(-1, 1) makes one feature" if inputs.ndim == 1 else ""
        raise UserError(
            f"data.path={file}: inputs are {inputs.shape}; allowed: (samples, features, ...){hint}"
        )
    n = len(inputs)
    if targets.ndim not in (1, 2) or len(targets) != n or targets.size == 0:
        raise UserError(
            f"data.path={file}: targets are {targets.shape} for inputs {inputs.shape};"
            f" allowed: ({n},), ({n}, K)"
        )
    targets = targets[:, 0] if targets.shape[1:] == (1,) else targets
    inputs = _numbers(inputs, file, _in_array("inputs"))
    data = _dataset(inputs, targets, file, _in_array("targets"), kind, standardize_targets, shares)
    if inputs.ndim == 4 and inputs.shape[3] in (1, 3, 4) and inputs.shape[1] > inputs.shape[3]:
        hint = (
            f"inputs are {inputs.shape}: pictures have their channels first, (N, C, H, W);"
            " if these have them last, save inputs.transpose(0, 3, 1, 2)"
        )
        remarks = [data.facts["remark"], hint] if "remark" in data.facts else [hint]
        data = replace(data, facts={**data.facts, "remark": "; ".join(remarks)})
    return data


def image_folder(*, path: str | None, size: int, colour: str, **shares: Any) -> Dataset:
    """Pictures (N, C, H, W), shades 0 to 1 before they are standardized, from a folder for each class.

    Args:
        path: the folder that has the folders.
        size: H and W; pictures of another shape are stretched.
        colour: "grey" (C = 1) or "rgb" (C = 3).
        shares: as `dataset.divide` has them.

    Raises:
        UserError: the folder is not there, has less than two classes, or a picture cannot be read.
    """
    from PIL import Image
    from torchvision.datasets import ImageFolder

    folder = _existing(path, "my_pictures", folder=True)
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.path={folder}: needs a folder of pictures for each class: {reason}") from error
    pictures = []
    for name, _ in found.samples:
        try:
            with Image.open(name) as picture:
                whole = picture.convert(COLOURS[colour]).resize((size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # PIL's many readers raise what they happen to raise
            raise UserError(f"data.path={folder}: {name} cannot be read as a picture") from error
        pictures.append(torch.from_numpy(np.array(whole)).view(size, size, -1).permute(2, 0, 1))
    samples = Split(torch.stack(pictures).float() / 255, torch.tensor(found.targets))
    return _classification(samples, found.classes, folder, shares)


def _dataset(
    inputs: np.ndarray,
    targets: np.ndarray,
    file: Path,
    where: Where,
    kind: str,
    standardize_targets: bool,
    shares: dict[str, Any],
) -> Dataset:
    """Inputs (N, ...) with classes, or with numbers to be predicted.

    Args:
        targets: (N,) numbers or text, or (N, K) numbers.
        kind: "classification", "regression", or "auto": text and up to `FEW` different whole numbers
            are classes. Classes are numbered in sorted order. "multi_label": K answers of 0 or 1 each,
            NaN where unknown.
    """
    if kind == "multi_label":
        return _multi_label(inputs, targets, file, where, shares)
    values = targets
    if targets.dtype.kind not in "US" or not _is_text(targets, kind):
        hint = "" if kind == "regression" else ", or data.kind=classification to take each for a class"
        values = _numbers(targets, file, where, np.float64, hint, are_answers=True)
        broken = np.argwhere(values != values.round())
        few = values.ndim == 1 and not len(broken) and len(np.unique(values)) <= FEW
        if kind == "regression" or (kind == "auto" and not few):
            remark = _remark(values) if kind == "auto" else ""
            return _regression(inputs, values, file, standardize_targets, remark, shares)
        if values.ndim != 1:
            raise UserError(f"data.kind={kind}: targets are {values.shape}; allowed: ({len(values)},)")
        if len(broken):
            value = values[tuple(broken[0])]
            raise UserError(f"data.kind={kind}: {where(broken[0])} is {value}; allowed: whole numbers, text")
        values = values.astype(np.int64)
    classes, indices = np.unique(values, return_inverse=True)
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(indices).long())
    return _classification(samples, classes.tolist(), file, shares)


def _classification(samples: Split, classes: list[Any], place: Path, shares: dict[str, Any]) -> Dataset:
    """With two classes or more, in the training split as well."""
    if len(classes) < 2:
        raise UserError(f"data.path={place}: all samples are of one class, {classes[0]}; needs two or more")
    data = dataset.divide(samples, outputs=len(classes), facts={"classes": classes}, **shares)
    if len(left := data.train.targets.unique()) < 2:
        raise UserError(
            f"data.path={place}: all samples of the training split ({len(data.train)}) are of one class,"
            f" {classes[left[0]]}; needs two or more: try another data.split_seed, or add samples"
        )
    return data


def _multi_label(
    inputs: np.ndarray, targets: np.ndarray, file: Path, where: Where, shares: dict[str, Any]
) -> Dataset:
    if targets.dtype.kind not in "biuf":
        numbers = [_number(value) for value in targets.flat]
        if None in numbers:
            at = np.unravel_index(numbers.index(None), targets.shape)
            raise UserError(
                f"data.kind=multi_label: {where(at)} is {str(targets[at])!r}; allowed: 0, 1, NaN (unknown)"
            )
        targets = np.array(numbers).reshape(targets.shape)
    answers = targets.reshape(len(targets), -1).astype(np.float32)
    for i, k in np.argwhere(~((answers == 0) | (answers == 1) | np.isnan(answers))):
        at = (i, k)[: targets.ndim]
        raise UserError(
            f"data.kind=multi_label: {where(at)} is {answers[i, k]:g}; allowed: 0, 1, NaN (unknown)"
        )
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(answers))
    _refuse_unknown(samples, file, "samples")
    data = dataset.divide(samples, outputs=answers.shape[1], task="multi_label", **shares)
    _refuse_unknown(data.train, file, "samples of the training split")
    return data


def _refuse_unknown(split: Split, file: Path, which: str) -> None:
    for k in split.targets.isnan().all(dim=0).nonzero().flatten().tolist():
        raise UserError(f"data.path={file}: answer {k} is unknown in all {which}; nothing to learn")


def _regression(
    inputs: np.ndarray,
    targets: np.ndarray,
    file: Path,
    standardize_targets: bool,
    remark: str,
    shares: dict[str, Any],
) -> Dataset:
    targets = targets.reshape(len(targets), -1).astype(np.float32)
    if (targets == targets[0]).all(axis=0).any():
        raise UserError(
            f"data.path={file}: a target is {targets[0].tolist()} in all samples; nothing to learn"
        )
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(targets))
    facts = {"remark": remark} if remark else {}
    data = dataset.divide(samples, outputs=targets.shape[1], task="regression", facts=facts, **shares)
    return with_standardized_targets(data) if standardize_targets else data


def _remark(targets: np.ndarray) -> str:
    """Numbers that may be meant otherwise: what makes them that."""
    different = np.unique(targets)
    if targets.ndim == 2 and set(different) <= {0, 1}:
        return (
            f"targets of 0 and 1 in {targets.shape[1]} columns are taken for numbers;"
            " data.kind=multi_label takes them for answers, no or yes"
        )
    if targets.ndim == 1 and (different == different.round()).all() and len(different) < len(targets):
        return (
            f"{len(different)} different whole numbers as targets are taken for numbers;"
            " data.kind=classification takes them for classes"
        )
    return ""


def _unknown_answers(known: np.ndarray) -> str:
    """Where all targets that are known are 0 or 1, the rest may be unknown answers."""
    if {_number(value) for value in known.flat} <= {0.0, 1.0}:
        return "; data.kind=multi_label takes it for an unknown answer"
    return ""


def _is_text(targets: np.ndarray, kind: str) -> bool:
    """Are these the names of classes, and not numbers that were written as text?"""
    numbers = [_number(text) is not None for text in targets.flat]
    return not all(numbers) if kind == "classification" else kind == "auto" and not any(numbers)


def _numbers(
    values: np.ndarray,
    file: Path,
    where: Where,
    dtype: type[np.floating] = np.float32,
    hint: str = "",
    *,
    are_answers: bool = False,
) -> np.ndarray:
    """The values as finite numbers, or a line that names the first that is none."""
    if values.dtype.kind not in "biuf":
        parsed = [_number(value) for value in values.flat]
        if None in parsed:
            index = np.unravel_index(parsed.index(None), values.shape)
            raise UserError(
                f"data.path={file}: {where(index)} is {str(values[index])!r}; allowed: finite numbers{hint}"
            )
        values = np.array(parsed).reshape(values.shape)
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is told
        numbers = values.astype(dtype)
    if not np.isfinite(numbers).all():
        index = tuple(np.argwhere(~np.isfinite(numbers))[0])
        unknown = bool(np.isnan(values[index]))
        found = "empty or NaN" if unknown else values[index]
        hint = _unknown_answers(values[~np.isnan(values)]) if unknown and are_answers else ""
        raise UserError(f"data.path={file}: {where(index)} is {found}; allowed: finite numbers{hint}")
    return numbers


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, complex) else float(value)
    except (TypeError, ValueError):
        return None


def _read_csv(file: Path, target: str, separator: str) -> Any:
    """The file as a table of pandas, the target as text, so that names of classes stay as they are."""
    import pandas as pd

    form: dict[str, Any] = {
        "sep": separator,
        "index_col": False,
        "keep_default_na": False,
        "na_values": [""],
        "skipinitialspace": True,
        "encoding": "utf-8-sig",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is too long
            # pandas would give names that stand there twice a number
            names = pd.read_csv(file, header=None, nrows=1, dtype=str, **form).iloc[0].dropna()
            table = pd.read_csv(file, dtype={target: str}, low_memory=False, **form)
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"data.path={file}: cannot be read as CSV: {reason}{hint}") from error
    for name in names[names.duplicated()]:
        raise UserError(f"data.path={file}: two columns are called {name}; each needs a name of its own")
    return table


def _separated(line: str) -> str:
    """What to type for a table whose first line is that."""
    fitting = [name for name, sign in SEPARATORS.items() if sign in line]
    return f"type data.separator={fitting[0]}" if fitting else f"data.separator is {', '.join(SEPARATORS)}"


def _read_npz(file: Path, names: dict[str, str | None]) -> list[np.ndarray]:
    """The arrays of these names, in order; where the name is None, of a usual one."""
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        what = "has Python objects in it" if "Object arrays" in str(error) else "cannot be read as arrays"
        raise UserError(
            f"data.path={file}: {what}; allowed: numbers or text, by numpy.savez('my.npz', x=..., y=...)"
        ) from error
    found = []
    for key, name in names.items():
        usual = [name] if name else [n for n in ARRAYS[key] if n in arrays]
        if not usual or usual[0] not in arrays:
            meant = "" if name else f" called {', '.join(ARRAYS[key])}"
            listed = f"allowed: {_listed(list(arrays))}" if arrays else "it has none at all"
            raise UserError(f"data.{key}={name or 'null'}: no array{meant} in {file}; {listed}")
        found.append(arrays[usual[0]])
    return found


def _existing(path: str | None, example: str, *, folder: bool = False) -> Path:
    kind = "folder" if folder else "file"
    if path is None:
        raise UserError(f"data.path=null: name the {kind}, for example data.path={example}")
    place = Path(path).expanduser()
    if not (place.is_dir() if folder else place.is_file()):
        raise UserError(f"data.path={path}: {f'is no {kind}' if place.exists() else f'no such {kind}'}")
    return place


def _in_column(name: str) -> Where:
    return lambda index: f"column {name}, row {index[0] + 1} below the names,"


def _in_array(name: str) -> Where:
    return lambda index: f"{name}[{', '.join(map(str, index))}]"


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""The user's own data: a table in a CSV file, arrays in an .npz file, a folder of pictures for each class.

N samples, F features, K targets, C channels, H = W pixels on a side.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
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
        typed = "null" if target is None else target
        single = f"; nothing in it is separated by a {separator}: data.separator={'|'.join(SEPARATORS)}"
        raise UserError(
            f"data.target={typed}: no column of {file}; allowed: {_listed(names)}"
            + (single if len(names) == 1 else "")
        )
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
        raise UserError(f"data.path={file}: {_in_column(str(target))(empty)} is empty")
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
        raise UserError(f"data.path={file}: inputs are {inputs.shape}; allowed: (samples, features, ...)")
    n = len(inputs)
    if targets.ndim not in (1, 2) or len(targets) != n or targets.size == 0:
        raise UserError(
            f"data.path={file}: targets are {targets.shape} for inputs {inputs.shape};"
            f" allowed: ({n},), ({n}, K)"
        )
    targets = targets[:, 0] if targets.shape[1:] == (1,) else targets
    inputs = _numbers(inputs, file, _in_array("inputs"))
    return _dataset(inputs, targets, file, _in_array("targets"), kind, standardize_targets, shares)


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
    _refuse_one_class(folder, found.classes)
    samples = Split(torch.stack(pictures).float() / 255, torch.tensor(found.targets))
    facts = {"classes": found.classes}
    return dataset.divide(samples, outputs=len(found.classes), facts=facts, **shares)


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
        values = _numbers(targets, file, where, np.float64, hint)
        broken = np.argwhere(values != values.round())
        few = values.ndim == 1 and not len(broken) and len(np.unique(values)) <= FEW
        if kind == "regression" or (kind == "auto" and not few):
            return _regression(inputs, values, file, standardize_targets, shares)
        if values.ndim != 1:
            raise UserError(f"data.kind={kind}: targets are {values.shape}; allowed: ({len(values)},)")
        if len(broken):
            value = values[tuple(broken[0])]
            raise UserError(f"data.kind={kind}: {where(broken[0])} is {value}; allowed: whole numbers, text")
        values = values.astype(np.int64)
    classes, indices = np.unique(values, return_inverse=True)
    _refuse_one_class(file, classes.tolist())
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(indices).long())
    return dataset.divide(samples, outputs=len(classes), facts={"classes": classes.tolist()}, **shares)


def _multi_label(
    inputs: np.ndarray, targets: np.ndarray, file: Path, where: Where, shares: dict[str, Any]
) -> Dataset:
    answers = targets.reshape(len(targets), -1)
    if answers.dtype.kind not in "biuf":
        raise UserError(
            f"data.kind=multi_label: {where((0,) * targets.ndim)} is no number; allowed: 0, 1, NaN"
        )
    answers = answers.astype(np.float32)
    for i, k in np.argwhere(~((answers == 0) | (answers == 1) | np.isnan(answers))):
        at = (i, k)[: targets.ndim]
        raise UserError(
            f"data.kind=multi_label: {where(at)} is {answers[i, k]:g}; allowed: 0, 1, NaN (unknown)"
        )
    for k in np.flatnonzero(np.isnan(answers).all(axis=0)):
        raise UserError(f"data.path={file}: answer {k} is unknown in all samples; nothing to learn")
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(answers))
    return dataset.divide(samples, outputs=answers.shape[1], task="multi_label", **shares)


def _regression(
    inputs: np.ndarray, targets: np.ndarray, file: Path, standardize_targets: bool, shares: dict[str, Any]
) -> Dataset:
    targets = targets.reshape(len(targets), -1).astype(np.float32)
    if (targets == targets[0]).all(axis=0).any():
        raise UserError(
            f"data.path={file}: a target is {targets[0].tolist()} in all samples; nothing to learn"
        )
    samples = Split(torch.from_numpy(inputs), torch.from_numpy(targets))
    data = dataset.divide(samples, outputs=targets.shape[1], task="regression", **shares)
    return with_standardized_targets(data) if standardize_targets else data


def _is_text(targets: np.ndarray, kind: str) -> bool:
    """Are these the names of classes, and not numbers that were written as text?"""
    numbers = [_number(text) is not None for text in targets.flat]
    return not all(numbers) if kind == "classification" else kind == "auto" and not any(numbers)


def _numbers(
    values: np.ndarray, file: Path, where: Where, dtype: type[np.floating] = np.float32, hint: str = ""
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
        found = "empty or NaN" if np.isnan(values[index]) else values[index]
        raise UserError(f"data.path={file}: {where(index)} is {found}; allowed: finite numbers")
    return numbers


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, complex) else float(value)
    except (TypeError, ValueError):
        return None


def _read_csv(file: Path, target: str, separator: str) -> Any:
    """The file as a table of pandas, the target as text, so that names of classes stay as they are."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is too long
            return pd.read_csv(
                file,
                sep=separator,
                index_col=False,
                dtype={target: str},
                keep_default_na=False,
                na_values=[""],
                skipinitialspace=True,
                encoding="utf-8-sig",
                low_memory=False,
            )
    except (ValueError, OSError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.path={file}: cannot be read as CSV: {reason}") from error


def _read_npz(file: Path, names: dict[str, str | None]) -> list[np.ndarray]:
    """The arrays of these names, in order; where the name is None, of a usual one."""
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"data.path={file}: cannot be read as arrays that numpy.savez wrote") from error
    found = []
    for key, name in names.items():
        usual = [name] if name else [n for n in ARRAYS[key] if n in arrays]
        if not usual or usual[0] not in arrays:
            meant = "" if name else f" called {', '.join(ARRAYS[key])}"
            raise UserError(
                f"data.{key}={name or 'null'}: no array{meant} in {file}; allowed: {_listed(list(arrays))}"
            )
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


def _refuse_one_class(place: Path, classes: list[Any]) -> None:
    if len(classes) < 2:
        raise UserError(f"data.path={place}: all samples are of one class, {classes[0]}; needs two or more")


def _in_column(name: str) -> Where:
    return lambda index: f"column {name}, row {index[0] + 1} below the names,"


def _in_array(name: str) -> Where:
    return lambda index: f"{name}[{', '.join(map(str, index))}]"


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

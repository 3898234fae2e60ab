"""Data sets that this process has built, so that the runs of a sweep build each of them once."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path

from torch import Tensor

from dlexp.data.dataset import Dataset

MOST = 2**30  # bytes that are kept beside the data set that was used last

# The one used last stands last. Beside each: how often PyTorch had written into its tensors, by its count.
_kept: dict[Hashable, tuple[Dataset, list[int]]] = {}


def once(key: Hashable, build: Callable[[], Dataset]) -> Dataset:
    """What `build` gives, or has given for this key, if nothing has been written into it since.

    A network of somebody's own may work in place on what it is given; the next run must not see that.
    (PyTorch does not count what is written through `.data` or NumPy.)

    Args:
        key: all that decides what `build` gives.
    """
    data, before = _kept.pop(key, (None, []))
    if data is None or _writes(data) != before:
        data = None
        _make_room()
        data = build()
        before = _writes(data)
    _kept[key] = data, before
    return data


def stamp(path: str) -> tuple[object, ...]:
    """What changes with a file, or with any file within a folder."""
    place = Path(path).expanduser().resolve()
    files = [place]
    for folder, _, names in os.walk(place, followlinks=True):
        files += [Path(folder, name) for name in names]
    found = []
    for file in sorted(files):
        try:
            known = file.stat()
        except OSError:  # not there; whoever reads it says so
            continue
        found.append((str(file), known.st_mtime_ns, known.st_ctime_ns, known.st_size))
    return str(place), hash(tuple(found))


def _make_room() -> None:
    """Drop what was used longest ago, until no more than `MOST` is kept."""
    while sum(_bytes(data) for data, _ in _kept.values()) > MOST:
        del _kept[next(iter(_kept))]


def _tensors(data: Dataset) -> list[Tensor]:
    splits = [data.train, data.validation, data.test, *([data.train_dev] if data.train_dev else [])]
    return [tensor for split in splits for tensor in (split.inputs, split.targets)]


def _bytes(data: Dataset) -> int:
    return sum(tensor.nbytes for tensor in _tensors(data))


def _writes(data: Dataset) -> list[int]:
    return [tensor._version for tensor in _tensors(data)]

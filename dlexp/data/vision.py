"""torchvision's picture sets as tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError


def load(
    source: Callable[..., Any],
    root: str,
    download: bool,
    validation: float,
    split_seed: int,
    standardize: str,
    train_dev: float = 0.0,
) -> Dataset:
    """A torchvision set as inputs (N, C, H, W), shades 0 to 1 before they are standardized.

    Args:
        source: a torchvision data set that takes `root`, `train` and `download`.
        root: the folder that torchvision keeps its files in.
        download: fetch the files if they are not there.
        validation, train_dev: shares of the official training set that are held out; no `train_dev` at 0.

    Raises:
        UserError: the files are not there, or are no such set.
    """
    folder = Path(root).expanduser()
    name = getattr(source, "func", source).__name__
    halves = [_tensors(_open(source, name, folder, train, download)) for train in (True, False)]
    classes = int(torch.cat([half.targets for half in halves]).max()) + 1
    shares = {"validation": validation} | ({"train_dev": train_dev} if train_dev else {})
    first, held_out, *beside = dataset.split(halves[0], shares, split_seed)
    train, held_out, test, *beside = dataset.standardized([first, held_out, halves[1], *beside], standardize)
    return Dataset(train, held_out, test, classes, train_dev=beside[0] if beside else None)


def _open(source: Callable[..., Any], name: str, folder: Path, train: bool, download: bool) -> Any:
    try:
        return source(root=str(folder), train=train, download=download)
    except Exception as error:  # torchvision raises what its parsers happen to raise
        reason = " ".join(str(error).split()) or "its files are damaged"
        reason = reason.replace("download=True", "data.download=true")
        if download:
            raise UserError(
                f"data.download=true: {name} could not be fetched into {folder}: {reason}"
            ) from error
        if folder.exists() and not folder.is_dir():
            raise UserError(f"data.root={folder}: is a file; allowed: a folder") from error
        # where torchvision looks: a folder named after the class, or one that the class names
        place = folder / getattr(getattr(source, "func", source), "base_folder", name)
        if not place.exists():
            raise UserError(
                f"data.root={folder}: {name} is not there; add data.download=true to fetch it (needs a"
                " network), or name the folder that has torchvision's files with data.root=PATH"
            ) from error
        raise UserError(f"data.root={folder}: cannot be read as {name}: {reason}") from error


def _tensors(pictures: Any) -> Split:
    shades = torch.from_numpy(np.asarray(pictures.data)).float() / 255
    # MNIST and its kin are (N, H, W); CIFAR is (N, H, W, C)
    inputs = shades.unsqueeze(1) if shades.dim() == 3 else shades.permute(0, 3, 1, 2).contiguous()
    return Split(inputs, torch.as_tensor(pictures.targets).long())

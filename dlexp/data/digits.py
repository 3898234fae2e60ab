"""scikit-learn's real handwritten digits: 1797 pictures of 8x8 pixels, shades 0 to 16."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlexp.data import dataset
from dlexp.data.dataset import Dataset, Split


def load(**shares: Any) -> Dataset:
    """The digits as inputs (N, 1, 8, 8) and classes 0 to 9; `shares` as `dataset.divide` has them."""
    return dataset.divide(read(), outputs=10, **shares)


def read() -> Split:
    """All 1797 digits in scikit-learn's order, shades as they are.

    The file that scikit-learn ships is read without importing scikit-learn, which alone takes
    as long as half of PyTorch does.
    """
    found = importlib.util.find_spec("sklearn")
    assert found is not None and found.origin is not None  # it is a dependency of dlexp
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    else:  # another layout of some other version: ask scikit-learn itself
        from sklearn.datasets import load_digits

        digits = load_digits()
        table = np.column_stack([digits.data, digits.target]).astype(np.float32)
    rows = torch.from_numpy(table)
    return Split(rows[:, :64].reshape(-1, 1, 8, 8), rows[:, 64].long())

"""Small files in the formats that torchvision reads, so that its data sets load without a network.

A picture's shades tell which picture it is: all pixels of picture i are i modulo 256.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

TRAIN, TEST = 120, 30  # pictures of every set
CIFAR_PARTS = 5  # files that CIFAR's training set comes in


def labels(count: int) -> np.ndarray:
    """Classes 0 to 9 in turn: (count,) uint8."""
    return (np.arange(count) % 10).astype(np.uint8)


def shades(count: int, *shape: int) -> np.ndarray:
    """Picture i is filled with the shade i: (count, *shape) uint8."""
    ids = (np.arange(count) % 256).astype(np.uint8)
    return np.broadcast_to(ids.reshape(-1, *(1 for _ in shape)), (count, *shape)).copy()


def write_idx(path: Path, array: np.ndarray) -> None:
    """The IDX format of MNIST: two zero bytes, 8 for uint8, dimensions, sizes big-endian, the bytes."""
    sizes = np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str = "MNIST") -> None:
    """MNIST or FashionMNIST below `root`."""
    raw = root / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for half, count in (("train", TRAIN), ("t10k", TEST)):
        write_idx(raw / f"{half}-images-idx3-ubyte", shades(count, 28, 28))
        write_idx(raw / f"{half}-labels-idx1-ubyte", labels(count))


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 below `root`; torchvision's checksums become those of these files until the test ends."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)

    def put(name: str, content: dict[str, object]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def part(name: str, start: int, stop: int) -> list[str]:
        pictures = shades(stop, 3 * 32 * 32)[start:]
        pictures[:, 2048:] //= 2  # the blue channel, half as bright, to tell the channels apart
        return put(name, {"data": pictures, "labels": labels(stop)[start:].tolist()})

    size = TRAIN // CIFAR_PARTS
    train = [part(f"data_batch_{n + 1}", n * size, (n + 1) * size) for n in range(CIFAR_PARTS)]
    name, checksum = put("batches.meta", {"label_names": [str(n) for n in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [part("test_batch", 0, TEST)])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})


def write_garbage(root: Path) -> None:
    """Files with the right names and wrong contents."""
    names = [
        f"{s}/raw/{half}-{kind}-ubyte"
        for s in ("MNIST", "FashionMNIST")
        for half in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    names += [f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "test_batch", "batches.meta")]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"this is no data set at all")

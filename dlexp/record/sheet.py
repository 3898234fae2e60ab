"""Many tensors of a few steps measured together.

In a small network the calls, not the arithmetic, take the time. So small tensors are copied into the rows
of a sheet, and those of several steps are measured by one call; large ones are measured where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

SMALL = 32768  # elements; at this size a copy starts to cost more than the calls it saves
MEMORY = 2**22  # bytes that the steps of a sheet take at most, if it has more than one
MOST_STEPS = 8

# Norms that float32 can be trusted with: squares of smaller or larger numbers leave its range.
SAFE = (1e-15, 1e15)


class Rows:
    """Which of several rows, each of one tensor or more, are small.

    What is asked for comes in parts that the caller adds up: one for each small row, and one for each tensor
    of the large ones. The tensors of a step are given as one list, those of the first row first.
    """

    def __init__(self, rows: Sequence[Sequence[Tensor]]) -> None:
        """For rows of the same shapes as these."""
        sizes = [sum(t.numel() for t in row) for row in rows]
        whose = [r for r, row in enumerate(rows) for _ in row]
        self.small = [r for r, size in enumerate(sizes) if size <= SMALL]
        self.sizes = [sizes[r] for r in self.small]
        self.shapes = [[t.shape for t in rows[r]] for r in self.small]
        self._small_at = [k for k, r in enumerate(whose) if sizes[r] <= SMALL]
        self._large_at = [k for k, r in enumerate(whose) if sizes[r] > SMALL]
        self.large = [whose[k] for k in self._large_at]  # the row of each large tensor

    def split(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of small rows, and of large ones."""
        if not self._large_at:
            return tensors, []
        return [tensors[k] for k in self._small_at], [tensors[k] for k in self._large_at]


class Sheet:
    """The small rows of a few steps. Rows of one kind stand in a section of their own."""

    def __init__(self, sections: Sequence[Rows], steps: int, like: Tensor) -> None:
        """
        Args:
            like: has the type and the device of the cells.
        """
        self._sections = sections
        self._starts = [sum(len(rows.small) for rows in sections[:s]) for s in range(len(sections) + 1)]
        # Cells to the right of the end of a row stay 0 for ever.
        shape = steps, self._starts[-1], _width(sections)
        self.cells = torch.zeros(shape, dtype=like.dtype, device=like.device)

    def views(self, step: int) -> list[list[Tensor]]:
        """For each section: where the tensors of a step are to be copied."""
        width = self.cells.shape[2]
        lengths = []
        for rows in self._sections:
            for shapes, size in zip(rows.shapes, rows.sizes, strict=True):
                lengths += [*(shape.numel() for shape in shapes), width - size]
        parts = iter(self.cells[step].view(-1).split(lengths))
        found: list[list[Tensor]] = []
        for rows in self._sections:
            found.append([])
            for shapes in rows.shapes:
                found[-1] += [next(parts).view(shape) for shape in shapes]
                next(parts)  # what is to the right of its end
        return found

    def section(self, cells: Tensor, number: int) -> Tensor:
        """(steps, rows, width): a section of the cells of some steps."""
        return cells[:, self._starts[number] : self._starts[number + 1]]


def _width(sections: Sequence[Rows]) -> int:
    return max((size for rows in sections for size in rows.sizes), default=0)


def steps_in(*sheets: Sequence[Rows]) -> int:
    """How many steps there should be room for."""
    cells = sum(_width(sections) * sum(len(rows.small) for rows in sections) for sections in sheets)
    return max(1, min(MOST_STEPS, MEMORY // max(4 * cells, 1)))


def safe_norms(sheets: Sequence[Tensor]) -> Tensor:
    """The norms of all rows, (steps, rows), of sheets of (steps, rows, width); see `_safe`."""
    return _safe(lambda dtype: [torch.linalg.vector_norm(x, dim=-1, dtype=dtype) for x in sheets], sheets[0])


def safe_norms_of(tensors: list[Tensor]) -> Tensor:
    """The norm of each tensor, (n,), n > 0."""
    return _safe(lambda dtype: [torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))], tensors[0])


def _safe(norms: Callable[[torch.dtype | None], list[Tensor]], like: Tensor) -> Tensor:
    """Norms, side by side, also where a square leaves the range of float32.

    A signal of 1e-30 squares to 0 in float32, so it takes float64. On a CPU that is four times
    as slow, and looking costs nothing, so there float64 is the second try. MPS has none.
    """
    if like.device.type in ("cpu", "mps"):
        found = torch.cat(norms(None), dim=-1)
        if like.device.type == "mps" or found.dtype != torch.float32:
            return found
        values = found.flatten().tolist()
        if SAFE[0] < min(values, default=1) and max(values, default=1) < SAFE[1]:  # false for NaN, too
            return found
    return torch.cat(norms(torch.float64), dim=-1)


def zeros_in(cells: Tensor, sizes: Tensor) -> Tensor:
    """How many entries of each row are exactly 0: (steps, rows). Uses up the cells.

    Args:
        cells: (steps, rows, width), with zeros behind the ends of rows.
        sizes: (rows,), their lengths.
    """
    # In place no other memory is touched, and the cells behind the end of a row are still 0 afterwards.
    return sizes - cells.ne_(0.0).sum(dim=-1, dtype=torch.float32)


def zeros(t: Tensor) -> Tensor:
    """How many entries of a large, dense tensor of four bytes a number or more are exactly 0: (1,)."""
    if t.device.type == "cpu" and torch.get_num_threads() == 1:  # there NumPy takes half the time
        return torch.tensor([np.count_nonzero(t.numpy() == 0)], dtype=torch.float32)
    return count(torch.eq, t.reshape(1, -1), 0.0)


def count(compare: Callable[..., Tensor], rows: Tensor, value: float) -> Tensor:
    """For how many entries of each row of (..., N) the comparison holds: (...,) float.

    Written as 0.0 and 1.0 into a float tensor, whose sum is several times faster than that of bools.
    """
    found: Tensor = compare(rows, value, out=torch.empty_like(rows)).sum(dim=-1, dtype=torch.float32)
    return found

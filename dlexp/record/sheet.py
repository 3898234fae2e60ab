"""Many tensors measured together.

In a small network the calls, not the arithmetic, take the time. So small tensors are copied into
the rows of one sheet and measured by one call; large ones are measured where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SMALL = 32768  # elements; at this size a copy starts to cost more than the calls it saves

# Norms that float32 can be trusted with: squares of smaller or larger numbers leave its range.
SAFE = (1e-15, 1e15)


class Sheet:
    """Rows of one tensor or several, each with a norm and a number of zeros.

    What is asked for comes in parts that the caller adds up: one for each small row, then one for
    each tensor of the large rows. `owners` has the row of each part. The tensors of a step are given as
    one list, those of the first row first.
    """

    def __init__(self, rows: Sequence[Sequence[Tensor]], *, copy_large: bool = False) -> None:
        """A sheet for rows of the same shapes as these; `fill` brings the numbers.

        Args:
            rows: one tensor or more in each.
            copy_large: copy large tensors too, because they will have changed when they are needed.
        """
        sizes = [sum(t.numel() for t in row) for row in rows]
        self._small = [r for r, size in enumerate(sizes) if size <= SMALL]
        self._large = [r for r, size in enumerate(sizes) if size > SMALL]
        self.owners = [*self._small, *(r for r in self._large for _ in rows[r])]
        whose = [r for r, row in enumerate(rows) for _ in row]
        small, large = set(self._small), set(self._large)
        self._small_at = [k for k, r in enumerate(whose) if r in small]
        self._large_at = [k for k, r in enumerate(whose) if r in large]
        width = max((sizes[r] for r in self._small), default=0)
        # Cells to the right of the end of a row stay 0 for ever.
        like = rows[0][0] if rows else torch.empty(0)
        self._cells = torch.zeros(len(self._small), width, dtype=like.dtype, device=like.device)
        small_sizes = [float(sizes[r]) for r in self._small]
        self._sizes = torch.tensor(small_sizes, dtype=torch.float32, device=like.device)
        parts = iter(self._cells.view(-1).split([n for r in self._small for n in _lengths(rows[r], width)]))
        self._views = []
        for r in self._small:
            self._views += [next(parts).view(t.shape) for t in rows[r]]
            next(parts)  # what is to the right of its end
        self._copies = [torch.empty_like(t) for r in self._large for t in rows[r]] if copy_large else []
        self._outside: list[Tensor] = []
        widest = max((t.numel() for r in self._large for t in rows[r]), default=0)
        self._scratch = self._cells.new_empty(widest)

    @property
    def device(self) -> torch.device:
        return self._cells.device

    def fill(self, tensors: list[Tensor]) -> None:
        """Take in the tensors of a step."""
        if self._views:
            torch._foreach_copy_(self._views, self._small_of(tensors))
        self._outside = [tensors[k] for k in self._large_at]
        if self._copies:
            torch._foreach_copy_(self._copies, self._outside)
            self._outside = self._copies

    def subtract(self, tensors: list[Tensor]) -> None:
        """Take these tensors off the copies of those that `fill` took in."""
        if self._views:
            torch._foreach_sub_(self._views, self._small_of(tensors))
        if self._copies:
            torch._foreach_sub_(self._copies, [tensors[k] for k in self._large_at])

    def _small_of(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensors[k] for k in self._small_at] if self._large_at else tensors

    def norms(self, dtype: torch.dtype | None = None) -> Tensor:
        """The Euclidean norm of each part, (parts,), summed up in `dtype`."""
        found: Tensor = torch.linalg.vector_norm(self._cells, dim=1, dtype=dtype)
        if self._outside:
            large = torch.stack(torch._foreach_norm(self._outside, 2, dtype=dtype))
            found = torch.cat([found, large])
        return found

    def zeros(self) -> Tensor:
        """How many entries of each part are exactly 0. Uses up the small rows, until `fill` is called."""
        # In place no other memory is touched, and the cells behind the end of a row are still 0 afterwards.
        found = [self._sizes - self._cells.ne_(0.0).sum(dim=1, dtype=torch.float32)]
        found += [count(torch.eq, t.reshape(1, -1), 0.0, self._scratch) for t in self._outside]
        return torch.cat(found) if len(found) > 1 else found[0]

    def stack(self, rows: Sequence[int], shape: Sequence[int]) -> Callable[[], Tensor]:
        """What gives rows of one small tensor each, or one row of a large one, as (rows, *shape)."""
        if rows[0] in self._large:
            place = self._large.index(rows[0])
            return lambda: self._outside[place].unsqueeze(0)
        places = [self._small.index(r) for r in rows]
        cells: Tensor = self._cells[:, : math.prod(shape)].unflatten(1, list(shape))
        if places != list(range(places[0], places[0] + len(places))):
            return lambda: cells[places]
        side_by_side = cells[places[0] : places[-1] + 1]
        return lambda: side_by_side

    def release(self) -> None:
        """Let go of the tensors that were not copied."""
        self._outside = self._copies


def _lengths(row: Sequence[Tensor], width: int) -> list[int]:
    """Of the parts of a row of cells: one for each tensor, and the rest."""
    lengths = [t.numel() for t in row]
    return [*lengths, width - sum(lengths)]


def safe_norms(sheets: Sequence[Sheet]) -> Tensor:
    """The norms of all parts of `sheets`, also where a square leaves the range of float32.

    A signal of 1e-30 squares to 0 in float32, so it takes float64. On a CPU that is four times
    as slow, and looking costs nothing, so there float64 is the second try. MPS has none.
    """
    device = sheets[0].device
    if device.type in ("cpu", "mps"):
        found = torch.cat([sheet.norms() for sheet in sheets])
        if device.type == "mps" or found.dtype != torch.float32:
            return found
        values = found.tolist()
        if SAFE[0] < min(values, default=1) and max(values, default=1) < SAFE[1]:  # false for NaN, too
            return found
    return torch.cat([sheet.norms(torch.float64) for sheet in sheets])


def count(
    compare: Callable[..., Tensor], rows: Tensor, value: float, scratch: Tensor | None = None
) -> Tensor:
    """For how many entries of each row of (R, N) the comparison holds: (R,) float.

    Written as 0.0 and 1.0 into a float tensor, whose sum is several times faster than that of bools.

    Args:
        scratch: room for R * N numbers, to write them into.
    """
    out = torch.empty_like(rows) if scratch is None else scratch[: rows.numel()].view(rows.shape)
    found: Tensor = compare(rows, value, out=out).sum(dim=1, dtype=torch.float32)
    return found

"""Sheets: norms and zeros of many tensors of several steps at once, against each tensor by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlexp.record.sheet import (
    MEMORY,
    MOST_STEPS,
    SMALL,
    Rows,
    Sheet,
    safe_norms,
    safe_norms_of,
    steps_in,
    zeros,
    zeros_in,
)

SHAPES = [[(3, 4), (4,)], [(SMALL + 7,)], [(2, 2)], [(5, 9), (1,)]]  # one large row among small ones
STEPS = 3


def drawn(shapes: list[list[tuple[int, ...]]], step: int) -> list[list[Tensor]]:
    """Rows of numbers, some of them exactly 0."""
    rows = [[torch.randn(shape) for shape in row] for row in shapes]
    for t in (t for row in rows for t in row):
        t[t.abs() < 0.2 * step] = 0.0
    if rows and step == 1:
        rows[-1][-1].view(-1)[0] = torch.nan  # is not a zero
    return rows


def flat(row: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in row])


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[:1], SHAPES[1:2], []], ids=["all", "one", "large", "none"])
def test_norms_and_zeros_are_those_of_each_row_however_often(shapes: list[list[tuple[int, ...]]]) -> None:
    """Counting zeros uses up the cells: neither they nor the ends of short rows spoil what comes next."""
    torch.manual_seed(0)
    rows = Rows(drawn(shapes, 0))
    sheet = Sheet([rows, rows], STEPS, torch.empty(0))
    for _ in range(2):
        of_steps = [[drawn(shapes, step), drawn(shapes, step)] for step in range(STEPS)]
        for step, (first, second) in enumerate(of_steps):
            into = [view for own in sheet.views(step) for view in own]
            given = [rows.split([t for row in own for t in row])[0] for own in (first, second)]
            for view, t in zip(into, [*given[0], *given[1]], strict=True):
                view.copy_(t)
        wanted = [[flat(own[r]) for own in sections for r in rows.small] for sections in of_steps]
        norms = torch.tensor([[whole.double().norm() for whole in own] for own in wanted])
        found = safe_norms([sheet.cells])
        assert found.shape == (STEPS, 2 * len(rows.small))
        assert torch.allclose(found.double(), norms.double().reshape(found.shape), equal_nan=True)
        counted = zeros_in(
            sheet.section(sheet.cells[: STEPS - 1], 1), torch.tensor([float(n) for n in rows.sizes])
        )
        counts = [[float((whole == 0).sum()) for whole in own[len(rows.small) :]] for own in wanted[:-1]]
        assert counted.tolist() == counts


def test_large_tensors_are_told_apart_and_measured_where_they_lie() -> None:
    torch.manual_seed(0)
    rows = drawn(SHAPES, 2)
    split = Rows(rows)
    small, large = split.split([t for row in rows for t in row])
    assert split.small == [0, 2, 3] and split.large == [1] and split.sizes == [16, 4, 46]
    assert [t.shape for t in small] == [(3, 4), (4,), (2, 2), (5, 9), (1,)] and large[0] is rows[1][0]
    assert safe_norms_of(large).tolist() == pytest.approx([float(large[0].double().norm())])


def test_zeros_of_a_large_tensor() -> None:
    """Zero is zero with either sign; what is next to it, or no number, is not."""
    torch.manual_seed(0)
    t = torch.randn(40, 1000)
    t[3], t[5, :7], t[0, 0], t[0, 1] = 0.0, -0.0, torch.nan, 1e-45
    assert t[0, 1] != 0
    for one in (t, t.double(), t.t(), t[:, ::2], t[:0]):
        found = zeros(one)
        assert found.shape == (1,) and found.dtype == torch.float32
        assert found.tolist() == [sum(x == 0 for x in one.flatten().tolist())]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_are_right_where_squares_leave_the_range(size: float) -> None:
    cells = torch.full((2, 1, 4), size)
    cells[1] = 1.0
    assert safe_norms([cells])[:, 0].tolist() == pytest.approx([2 * size, 2.0], rel=1e-6)
    assert safe_norms_of([cells[0, 0]]).tolist() == pytest.approx([2 * size], rel=1e-6)


def test_a_sheet_has_room_for_a_few_steps_if_they_are_small() -> None:
    tiny, wide = Rows([[torch.empty(3)]]), Rows([[torch.empty(SMALL)]] * 40)
    assert steps_in([tiny]) == MOST_STEPS
    assert steps_in([wide]) == 1 and 4 * 40 * SMALL > MEMORY

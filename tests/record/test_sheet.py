"""Sheets: norms and zeros of many tensors at once, against each tensor by itself, step after step."""

from __future__ import annotations

import pytest
import torch

from dlexp.record.sheet import SMALL, Sheet, safe_norms

SHAPES = [[(3, 4), (4,)], [(SMALL + 7,)], [(2, 2)], [(5, 9), (1,)]]  # one large row among small ones


@pytest.mark.parametrize(
    "shapes", [SHAPES, SHAPES[1:2], SHAPES[:1], []], ids=["all", "large", "small", "none"]
)
def test_norms_and_zeros_are_those_of_each_row_however_often(shapes: list[list[tuple[int, ...]]]) -> None:
    """Counting the zeros uses up the cells: neither they nor the ends of short rows spoil the next step."""
    torch.manual_seed(0)
    rows = [[torch.empty(shape) for shape in row] for row in shapes]
    sheet = Sheet(rows)
    for step in range(3):
        for t in (t for row in rows for t in row):
            t.normal_()[t.abs() < 0.2 * step] = 0.0
        if rows and step == 1:
            rows[-1][-1].view(-1)[0] = torch.nan  # is not a zero
        sheet.fill([t for row in rows for t in row])
        wholes = [torch.cat([t.flatten() for t in rows[r]]) for r in sheet.owners]
        norms = torch.tensor([whole.norm() for whole in wholes])
        assert torch.allclose(safe_norms([sheet]).float(), norms, equal_nan=True)
        assert sheet.zeros().tolist() == [(whole == 0).sum() for whole in wholes]

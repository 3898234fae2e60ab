"""The reader of texts: its parts in their order, and CTC from end to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from record.second_opinion import column, recorded, sgd
from torch import Tensor, nn

from dlexp.build.crnn import CRNN, crnn
from dlexp.build.normalization import batch
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError

SMALL: dict[str, Any] = {"channels": 2, "width": 3, "bias": True, "activation": nn.ReLU}
SYMBOLS = 4  # 0 is the blank


def made_up(samples: int = 16, height: int = 8, width: int = 16) -> Split:
    """Strings of two symbols, each a bright bar at a height of its own: (N, 1, H, W) and (N, 2)."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(1, SYMBOLS, (samples, 2), generator=generator)
    pictures = torch.rand(samples, 1, height, width, generator=generator) * 0.1
    for i, text in enumerate(texts.tolist()):
        for place, symbol in enumerate(text):
            left = place * width // 2 + 1
            pictures[i, 0, 2 * symbol - 1 : 2 * symbol + 1, left : left + width // 2 - 2] = 1
    return Split(pictures, texts)


def data(split: Split, task: str = "transcription") -> Dataset:
    return Dataset(split, split, split, SYMBOLS, task)


def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's CTC of (B, T, K) and (B, L)."""
    times = torch.full((len(outputs),), outputs.shape[1])
    found: Tensor = nn.functional.ctc_loss(
        outputs.log_softmax(2).transpose(0, 1), targets, times, (targets > 0).sum(1)
    )
    return found


@pytest.mark.parametrize("shape", [(1, 8, 16), (1, 12, 57), (3, 5, 9)])
def test_every_second_column_is_a_time_step(shape: tuple[int, int, int]) -> None:
    """(B, C, H, W) -> (B, W // 2, K), whatever the height."""
    split = Split(torch.zeros(2, *shape), torch.ones(2, 2, dtype=torch.long))
    model = crnn(shape, 5, data(split), **SMALL)
    assert model(split.inputs).shape == (2, shape[2] // 2, 5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_picture_passes_as_written_down(bias: bool) -> None:
    """Convolutions and pools by hand; PyTorch's bidirectional GRU of the same weights; gradients, too."""
    torch.manual_seed(0)
    model = crnn((1, 8, 6), SYMBOLS, data(made_up()), **SMALL | {"bias": bias}).double()
    x = torch.randn(2, 1, 8, 6, dtype=torch.float64)
    first, second = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    h = nn.functional.max_pool2d(first(x).relu(), 2)
    h = nn.functional.max_pool2d(second(h).relu(), (2, 1))  # (2, 4, 2, 3)
    columns = torch.stack([h[:, :, :, t].reshape(2, 8) for t in range(3)], dim=1)
    fused = nn.GRU(8, 3, batch_first=True, bidirectional=True, bias=bias).double()
    both = (("", model.from_left), ("_reverse", model.from_right))
    for suffix, cell in both:
        for name, parameter in cell.named_parameters():
            getattr(fused, f"{name}_l0{suffix}").data.copy_(parameter.data)
    right = model.output(fused(columns)[0])
    torch.testing.assert_close(model(x), right)
    right.square().sum().backward()
    model.zero_grad()
    model(x).square().sum().backward()
    for suffix, cell in both:
        for name, parameter in cell.named_parameters():
            torch.testing.assert_close(parameter.grad, getattr(fused, f"{name}_l0{suffix}").grad)


@pytest.mark.parametrize(
    ("position", "stage"),
    [
        ("before", ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]),
        ("after", ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]),
    ],
)
def test_normalizations_are_those_of_pictures(position: str, stage: list[str]) -> None:
    """In front of the activation or behind it; without bias no layer has one."""
    model = crnn(
        (1, 8, 16),
        SYMBOLS,
        data(made_up()),
        **SMALL | {"bias": False},
        normalization=batch,
        position=position,
    )
    assert [type(module).__name__ for module in model.convolutions.children()] == stage * 2
    layers = [model.output, *(m for m in model.convolutions.children() if isinstance(m, nn.Conv2d))]
    assert [module.bias for module in layers] == [None] * 3
    assert not model.from_left.bias and not model.from_right.bias


def test_layers_are_recorded_with_the_error_over_time() -> None:
    """delta_rms of all five as autograd has it in float64; dL/dh_t of both directions, as they ran.

    The hidden states are kept in a loop of the test's own; the cell from the right sees column 7 at t = 0.
    """
    torch.manual_seed(0)
    split = made_up()
    x, y = split.inputs.double(), split.targets
    model = crnn((1, 8, 16), SYMBOLS, data(split), **SMALL).double()
    features = model.convolutions(x)
    columns = features.flatten(1, 2).transpose(1, 2)
    states: dict[nn.Module, list[Tensor]] = {model.from_left: [], model.from_right: []}
    for cell, places in ((model.from_left, range(8)), (model.from_right, range(7, -1, -1))):
        h = torch.zeros(len(x), 3, dtype=torch.float64)
        for place in places:
            h = cell(columns[:, place], h)
            h.retain_grad()
            states[cell].append(h)
    left, right = (torch.stack(kept, dim=1) for kept in states.values())
    z = model.output(torch.cat([left, right.flip(1)], dim=2))
    z.retain_grad()
    ctc(z, y).backward()

    (row,) = recorded(model, [(x, y)], sgd(), ctc)
    for i, kept in enumerate(states.values(), start=2):
        wanted = [h.grad.pow(2).mean().item() for h in kept if h.grad is not None]
        assert len(wanted) == 8
        assert row.over_time["delta_rms", i] == pytest.approx(np.sqrt(wanted), rel=1e-9)
        assert column(row, "delta_rms")[i] == pytest.approx(np.sqrt(np.mean(wanted)), rel=1e-9)
    assert z.grad is not None
    assert column(row, "delta_rms")[4] == pytest.approx(z.grad.pow(2).mean().sqrt().item(), rel=1e-9)
    assert all(x is not None for x in column(row, "delta_rms"))
    assert {i for _, i in row.over_time} == {2, 3}


def test_bars_are_read() -> None:
    """From noise to the right two symbols, without being told where they stand."""
    torch.manual_seed(0)
    split = made_up(32)
    model = crnn((1, 8, 16), SYMBOLS, data(split), **SMALL | {"channels": 4, "width": 12})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        ctc(model(split.inputs), split.targets).backward()
        optimizer.step()
    assert read(model, split.inputs) == split.targets.tolist()


def read(model: CRNN, pictures: Tensor) -> list[list[int]]:
    """The best symbol of each column, repeats merged, blanks left out."""
    best = model(pictures).argmax(2).tolist()
    return [[s for s, before in zip(row, [0, *row], strict=False) if s not in (0, before)] for row in best]


@pytest.mark.parametrize(
    ("shape", "task", "said"),
    [
        (
            (1, 8, 16),
            "classification",
            "^model=crnn: for the task transcription; .* is classification; allowed: data=digit_strings$",
        ),
        (
            (13,),
            "transcription",
            r"^model=crnn: takes pictures \(C, H, W\); a sample of the data is \(13,\); allowed: data=",
        ),
        (
            (1, 3, 16),
            "transcription",
            "^model=crnn: takes 4x2 pixels or more; the pictures have 3x16; allowed: larger ones$",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(shape: tuple[int, ...], task: str, said: str) -> None:
    """In one line."""
    with pytest.raises(UserError, match=said):
        crnn(shape, SYMBOLS, replace(data(made_up()), task=task), **SMALL)

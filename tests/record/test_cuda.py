"""The same code on CUDA. These tests skip themselves where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from second_opinion import Memory, adam, assert_same, expected, random_batches, recorded, sgd
from torch import nn

import dlexp
from dlexp.build.mlp import mlp
from dlexp.data.batches import Batches
from dlexp.data.dataset import Split
from dlexp.record.recorder import Recorder
from dlexp.train.loop import fit

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),  # PyTorch says that it is a prototype
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def network(
    width: int = 16, normalization: Callable[[int], nn.Module] | None = None, depth: int = 3
) -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((8,), 4, depth=depth, width=width, bias=True, activation=nn.Tanh, normalization=normalization)


@pytest.mark.parametrize("width", [16, 300])
@pytest.mark.parametrize("normalization", [None, nn.BatchNorm1d])
def test_quantities_on_cuda_agree_with_autograd(
    width: int, normalization: Callable[[int], nn.Module] | None
) -> None:
    """The second opinion, computed on the same device in float64."""
    model = network(width, normalization).double().cuda()
    batches = [(x.cuda(), y.cuda()) for x, y in random_batches(3, 128, 8, classes=4)]
    wanted = expected(model, batches, adam())
    assert_same(recorded(model, batches, adam()), wanted, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_signals_far_from_one_are_right_on_cuda(scale: float) -> None:
    """Where squares leave the range of float32 the numbers are neither 0 nor inf."""
    torch.manual_seed(0)
    single = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Identity())
    batches = random_batches(1, 128, 8, classes=4, dtype=torch.float32, scale=scale)
    loss = nn.functional.multi_margin_loss
    wanted = expected(single.double(), [(x.double(), y) for x, y in batches], sgd(), loss)
    rows = recorded(single.float().cuda(), [(x.cuda(), y.cuda()) for x, y in batches], sgd(), loss)
    assert_same(rows, wanted, rtol=1e-4, skip="update_ratio")


def test_records_on_cuda_are_close_to_those_of_the_cpu(tmp_path: Path) -> None:
    """The same words on both devices start from the same weights and see the same batches."""
    words = ["train.max_steps=4", "record.every=1", f"outputs={tmp_path}"]
    one, other = (dlexp.run([*words, f"device={name}"], quiet=True) for name in ("cpu", "cuda"))
    assert other.summary["device"] == "cuda"
    for here, there in zip(one.summary["layers"], other.summary["layers"], strict=True):
        for name in ("grad_norm", "delta_rms", "activation_rms", "weight_norm", "update_ratio"):
            assert there["first"][name] == pytest.approx(here["first"][name], rel=1e-4)
            assert there["last"][name] == pytest.approx(here["last"][name], rel=1e-2)


def no_syncs_between(quiet_steps: range, steps: range) -> Iterator[int]:
    """The steps; during the quiet ones whatever makes the host wait is an error."""
    for step in steps:
        torch.cuda.set_sync_debug_mode("error" if step in quiet_steps else "default")
        yield step
    torch.cuda.set_sync_debug_mode("default")


def test_the_host_does_not_wait_on_steps_that_are_not_due() -> None:
    """From the step after a recorded one up to the next: no transfer, batches and loop included."""
    model = network(normalization=nn.BatchNorm1d).cuda()
    data = Split(torch.randn(200, 8), torch.randint(4, (200,))).to(torch.device("cuda"))
    memory = Memory()
    recorder = Recorder(model, lambda step: step in (0, 20), [memory])
    try:
        bad = fit(
            model,
            nn.functional.cross_entropy,
            adam()(model.parameters()),
            Batches(data, 32, 0),  # three epochs within the quiet steps
            no_syncs_between(range(1, 20), range(21)),
            recorder=recorder,
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    recorder.close()
    assert bad.status == "finished"
    assert [row.step for row in memory.kept] == [0, 20]


def test_a_recorded_step_waits_once_for_many_rows() -> None:
    """Measuring itself makes nobody wait: only the flush does."""
    model = network().cuda()
    recorder = Recorder(model, lambda _: True, [])
    waits = 0
    real = recorder.flush

    def flush() -> None:
        nonlocal waits
        waits += bool(recorder._pending)
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        real()
        torch.cuda.set_sync_debug_mode(mode)

    recorder.flush = flush  # type: ignore[method-assign]
    batches = [(x.cuda(), y.cuda()) for x, y in random_batches(13, 32, 8, classes=4, dtype=torch.float32)]
    try:
        fit(
            model,
            nn.functional.cross_entropy,
            sgd()(model.parameters()),
            iter(batches),
            no_syncs_between(range(3, 12), range(13)),  # the first steps set things up
            recorder=recorder,
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    recorder.close()
    assert 1 <= waits <= 3


@pytest.mark.parametrize("due", [{0, 12}, set(range(13))])
def test_divergence_on_cuda_names_the_first_bad_step(due: set[int]) -> None:
    """The device remembers it, also between recorded steps."""
    model = network().cuda()
    batches = random_batches(13, 32, 8, classes=4, dtype=torch.float32)
    batches[7][0][0, 0] = torch.nan
    recorder = Recorder(model, due.__contains__, [])
    bad = fit(
        model,
        nn.functional.cross_entropy,
        sgd()(model.parameters()),
        iter([(x.cuda(), y.cuda()) for x, y in batches]),
        range(13),
        recorder=recorder,
    )
    recorder.close()
    assert bad == ("diverged", 7)


def test_weights_on_cuda_do_not_depend_on_watching() -> None:
    """Bitwise, with deterministic kernels of one machine, dropout included."""

    def weights(due: Callable[[int], bool]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = mlp(
            (8,), 4, depth=3, width=32, bias=True, activation=nn.ReLU, dropout=partial(nn.Dropout, 0.5)
        ).cuda()
        recorder = Recorder(model, due, [])
        batches = random_batches(30, 32, 8, classes=4, dtype=torch.float32)
        torch.cuda.manual_seed(1)
        fit(
            model,
            nn.functional.cross_entropy,
            adam()(model.parameters()),
            iter([(x.cuda(), y.cuda()) for x, y in batches]),
            range(30),
            recorder=recorder,
        )
        recorder.close()
        return [p.detach().cpu() for p in model.parameters()]

    for one, other in zip(weights(lambda _: False), weights(lambda _: True), strict=True):
        assert torch.equal(one, other)


def test_a_run_on_cuda_leaves_the_random_state_of_the_device(tmp_path: Path) -> None:
    """A notebook draws what it would have drawn."""
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    run = dlexp.run(
        ["train.max_steps=3", "dropout=standard", "device=cuda", f"outputs={tmp_path}"], quiet=True
    )
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert run.summary["status"] == "finished"

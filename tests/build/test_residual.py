"""Residual branches start as theory says: forward, backward, and in what is recorded.

L blocks, W width, B batch.
"""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from record.second_opinion import Memory, column, recorded, sgd
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import dlexp
from dlexp.build.initialize import initialize
from dlexp.build.residual import Residual, deep_linear, residual_mlp
from dlexp.errors import UserError
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import schedule
from dlexp.report.terminal import layer_table
from dlexp.train.loop import fit

WIDTH, BATCH, SEEDS = 256, 64, 6
BRANCHES = ("plain", "zero_init", "pre_norm", "scaled")


def started(branch: str, depth: int, seed: int = 0, *, width: int = WIDTH) -> nn.Sequential:
    """With ReLU and Kaiming's weights, biases 0."""
    torch.manual_seed(seed)
    model = residual_mlp(
        (16,), 10, depth=depth, width=width, bias=True, branch=branch, activation=nn.ReLU
    ).double()
    initialize(model, partial(nn.init.kaiming_normal_, nonlinearity="relu"), bias=0.0)
    return model


def stream(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The sum in front of each block and behind the last, (B, W) each."""
    found = [model[1](model[0](x))]
    for block in model:
        if isinstance(block, Residual):
            found.append(block(found[-1]))
    return found


def sizes(branch: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of the sum (L + 1,) and of its gradient, each divided by that where it starts.

    The gradient that comes in at the end is random. Mean over the seeds.
    """
    forward, backward = [], []
    for seed in range(SEEDS):
        model = started(branch, depth, seed)
        x = torch.randn(BATCH, 16, dtype=torch.float64)
        values = stream(model, x)
        gradients = torch.autograd.grad(values[-1], values, torch.randn_like(values[-1]))
        forward.append([v.pow(2).mean().item() for v in values])
        backward.append([g.pow(2).mean().item() for g in gradients])
    f, b = np.array(forward), np.array(backward)
    return (f / f[:, :1]).mean(axis=0), (b / b[:, -1:]).mean(axis=0)


def test_plain_doubles_in_each_block() -> None:
    """f(x) is as large as x and not correlated with it; forward as backward."""
    forward, backward = sizes("plain", 8)
    assert np.log2(forward) == pytest.approx(np.arange(9), abs=0.4)
    assert np.log2(backward) == pytest.approx(np.arange(8, -1, -1), abs=0.4)
    assert np.polyfit(np.arange(9), np.log2(forward), 1)[0] == pytest.approx(1, abs=0.05)


def test_scaled_stays_below_e() -> None:
    """(1 + 1/L)^l, in the end near e however many blocks there are."""
    for depth in (4, 16):
        forward, backward = sizes("scaled", depth)
        theory = (1 + 1 / depth) ** np.arange(depth + 1)
        assert forward == pytest.approx(theory, rel=0.08)
        assert backward == pytest.approx(theory[::-1], rel=0.08)
    assert forward[-1] == pytest.approx(math.e, rel=0.1)


def test_zero_init_is_the_identity() -> None:
    """To the last bit, also with PyTorch's own random biases."""
    model = started("zero_init", 5)
    initialize(model, nn.init.kaiming_normal_, bias=None)
    values = stream(model, torch.randn(BATCH, 16, dtype=torch.float64))
    assert all(torch.equal(value, values[0]) for value in values)


def test_zero_init_learns_from_its_last_layers_first() -> None:
    """What stands in front of a matrix of zeros gets no gradient at the first step, and one at the second."""
    model = started("zero_init", 2, width=12)
    x, y = torch.randn(8, 16, dtype=torch.float64), torch.arange(8)
    first, second = recorded(model, [(x, y), (x, y)], sgd())
    at_first, then = ([x for x in column(row, "grad_norm") if x is not None] for row in (first, second))
    assert [norm == 0 for norm in at_first] == [False, True, False, True, False, False]  # stem ... output
    assert all(norm != 0 for norm in then)


def test_pre_norm_grows_by_the_same_in_each_block() -> None:
    """f sees mean square 1 and gives it back; the gradient behind block l is divided by what has grown."""
    depth = 12
    start = 2.0  # what Kaiming's stem makes of inputs of variance 1
    forward, backward = sizes("pre_norm", depth)
    theory = 1 + np.arange(depth + 1) / start
    assert forward == pytest.approx(theory, rel=0.1)
    assert backward == pytest.approx(theory[-1] / theory, rel=0.15)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_sample_passes_as_written_down(branch: str) -> None:
    """x + s W2 relu(W1 relu(x)), by hand, with biases."""
    torch.manual_seed(1)
    model = residual_mlp((2, 2), 3, depth=2, width=5, bias=True, branch=branch, activation=nn.ReLU)
    x = torch.randn(6, 2, 2)
    matrices = [(m.weight, m.bias) for m in model.modules() if isinstance(m, nn.Linear)]

    def enter(h: Tensor) -> Tensor:
        return nn.functional.layer_norm(h, (5,)) if branch == "pre_norm" else h

    (w, b), *branches, (v, c) = matrices
    h = x.reshape(6, 4) @ w.T + b
    for (w1, b1), (w2, b2) in zip(branches[::2], branches[1::2], strict=True):
        f = (enter(h).relu() @ w1.T + b1).relu() @ w2.T + b2
        h = h + f * (2**-0.5 if branch == "scaled" else 1)
    torch.testing.assert_close(model(x), enter(h).relu() @ v.T + c)


@pytest.mark.parametrize("branch", BRANCHES)
def test_delta_rms_is_that_of_autograd(branch: str) -> None:
    """In float64, of each layer inside the branches, and of what each block hands on."""
    model = started(branch, 3, width=12)
    x, y = torch.randn(8, 16, dtype=torch.float64), torch.arange(8)
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, z: Tensor) -> None:
        z.retain_grad()
        kept.append(z)

    kinds = nn.Linear | Residual
    handles = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, kinds)]
    nn.functional.cross_entropy(model(x), y).backward()
    for handle in handles:
        handle.remove()
    wanted = [z.grad.pow(2).mean().sqrt().item() for z in kept if z.grad is not None]
    assert len(wanted) == 1 + 3 * 3 + 1
    (row,) = recorded(model, [(x, y)], sgd())
    assert column(row, "delta_rms") == pytest.approx(wanted, rel=1e-9)
    sizes = [v.pow(2).mean().sqrt().item() for v in stream(started(branch, 3, width=12), x)[1:]]
    assert column(row, "activation_rms")[3:-1:3] == pytest.approx(sizes, rel=1e-9)


def test_a_stream_has_no_weights() -> None:
    """What there is of weights is absent with a reason, never 0; also where no update was made."""
    model = started("plain", 2, width=12)
    x, y = torch.randn(8, 16, dtype=torch.float64), torch.arange(8)
    memory = Memory()
    recorder = Recorder(model, schedule(1, 2), [memory])
    assert [layer.name for layer in recorder.layers][3::3] == ["04_stream", "07_stream"]
    assert [(layer.shape, layer.parameters) for layer in recorder.layers][3::3] == [((), 0)] * 2
    for target in (y, torch.full_like(x[:, :10], math.nan)):  # the second loss is NaN: no update
        loss = nn.functional.cross_entropy
        fit(model, loss, sgd()(model.parameters()), iter([(x, target)]), range(1), recorder=recorder)
    recorder.close()
    weights = ["grad_norm", "weight_norm", "update_ratio", "zero_grad_fraction"]
    wanted = dict.fromkeys(weights, "no weights")
    wanted |= dict.fromkeys(["dead_fraction", "saturated_fraction"], "no activation module was seen")
    for row in memory.kept:
        for i in (3, 6):
            assert {QUANTITIES[q]: why for (q, at), why in row.reasons.items() if at == i} == wanted
    assert len(memory.kept) == 2
    update = INDEX["update_ratio"]
    assert memory.kept[1].reasons[update, 1] == "no update was made"


BLOCK = np.arange(1, 9)
THEORY = {  # mean square of the sum behind each of eight blocks
    "plain": 2.0**BLOCK,
    "zero_init": np.ones(8),
    "pre_norm": 1 + BLOCK / 2,  # Kaiming's stem makes 2 of inputs of variance 1
    "scaled": (1 + 1 / 8) ** BLOCK,
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_recorded_stream_grows_as_theory_says(branch: str) -> None:
    """Forward down the rows, and the error up them: both divided by that where they start."""
    forward, backward = [], []
    for seed in range(SEEDS):
        model = started(branch, 8, seed)
        batch = torch.randn(BATCH, 16, dtype=torch.float64), torch.randint(10, (BATCH,))
        (row,) = recorded(model, [batch], sgd(0.0))
        rows = slice(3, -1, 3)
        forward.append(row.table[INDEX["activation_rms"], rows] ** 2)
        backward.append(row.table[INDEX["delta_rms"], rows] ** 2)
    f, b = np.array(forward), np.array(backward)
    grown = THEORY[branch]
    tolerance = {"plain": 0.25, "zero_init": 1e-9}.get(branch, 0.15)
    assert (f / f[:, :1]).mean(axis=0) == pytest.approx(grown / grown[0], rel=tolerance)
    passed = grown[-1] / grown if branch == "pre_norm" else grown[::-1] / grown[0]
    assert (b / b[:, -1:]).mean(axis=0) == pytest.approx(passed, rel=tolerance)


def test_streams_in_what_a_run_leaves(tmp_path: Path) -> None:
    """Table, summary, TensorBoard and the gradient check: numbers where there are any, nothing else."""
    words = [
        *("model=residual_mlp", "model.depth=1", "model.width=4", "debug=gradient_check"),
        *("train.max_steps=2", "train.epochs=1", f"outputs={tmp_path}"),
    ]
    run = dlexp.run(words, quiet=True)
    names = ["01_linear", "02_linear", "03_linear", "04_stream", "05_linear"]
    assert list(run.layers.index) == names
    assert run.layers.loc["04_stream", "grad_norm"].isna().all()
    assert run.layers.loc["04_stream", "delta_rms"].notna().all()
    stream = run.summary["layers"][3]
    assert (stream["kind"], stream["shape"], stream["parameters"]) == ("Stream", [], 0)
    assert stream["last"]["weight_norm"] is None
    assert stream["reasons"]["last"]["weight_norm"] == "no weights"
    assert [check["layer"] for check in run.summary["gradient_check"]] == names[:3] + names[4:]
    board = EventAccumulator(str(run.folder)).Reload()
    tags = [tag for tag in board.Tags()["scalars"] if tag.endswith("04_stream")]
    assert sorted(tags) == ["activation_rms/04_stream", "delta_rms/04_stream"]
    console = Console(file=io.StringIO(), width=120)
    console.print(layer_table(run.summary, wide=True))
    (line,) = [line for line in console.file.getvalue().splitlines() if "04_stream" in line]  # type: ignore[attr-defined]
    assert line.split()[1:3] == ["–", "–"] and line.split()[7:11] == ["–"] * 4


def test_the_table_shows_what_a_branch_does_to_gradients(tmp_path: Path) -> None:
    """Down 16 blocks the error at the output of a branch grows by 2^(15/2) or stays, by the variant."""
    shares = {}
    for branch in ("plain", "zero_init", "scaled"):
        words = [
            *("model=residual_mlp", "model.depth=16", "model.width=128", f"model.branch={branch}"),
            *("initializer=kaiming_normal", "train.max_steps=1", f"outputs={tmp_path}"),
        ]
        records = dlexp.run(words, quiet=True).records
        delta = records[~records["layer"].str.endswith("stream")]["delta_rms"].to_numpy()
        last_layers = delta[2:-1:2]  # behind the stem every second one
        shares[branch] = last_layers[0] / last_layers[-1]
    assert 90 < shares["plain"] < 400  # 181
    assert shares["zero_init"] == pytest.approx(1, rel=1e-5)
    assert 1.3 < shares["scaled"] < 1.9  # sqrt(e) = 1.65


def kinds(modules: nn.Sequential) -> list[str]:
    return [type(module).__name__ for module in modules]


@pytest.mark.parametrize(
    ("branch", "position", "f"),
    [
        ("plain", "before", ["BatchNorm1d", "Tanh", "Dropout", "Linear"] * 2),
        ("scaled", "after", ["Tanh", "BatchNorm1d", "Dropout", "Linear"] * 2),
        ("pre_norm", "before", ["BatchNorm1d", *["Tanh", "Dropout", "Linear"] * 2]),
    ],
)
def test_normalization_and_dropout_stand_where_they_should(branch: str, position: str, f: list[str]) -> None:
    """Around each activation, or at the entry of the branch alone."""
    model = residual_mlp(
        (4,),
        3,
        depth=2,
        width=5,
        bias=False,
        branch=branch,
        activation=nn.Tanh,
        normalization=nn.BatchNorm1d,
        position=position,
        dropout=nn.Dropout,
    )
    assert kinds(model)[:4] == ["Flatten", "Linear", "Residual", "Residual"]
    assert [kinds(block.branch) for block in model if isinstance(block, Residual)] == [f, f]
    assert kinds(model)[4:] == f[: f.index("Linear") + 1]
    assert {m.bias is None for m in model.modules() if isinstance(m, nn.Linear)} == {True}


def test_pre_norm_behind_the_activation_is_refused(tmp_path: Path) -> None:
    """It would not be one."""
    words = [
        *("model=residual_mlp", "model.branch=pre_norm", "normalization=layer"),
        *("normalization.position=after", f"outputs={tmp_path}"),
    ]
    with pytest.raises(UserError, match=r"^normalization.position=after: model.branch=pre_norm normalizes"):
        dlexp.run(words, quiet=True)


def test_a_deep_linear_net_is_one_matrix(tmp_path: Path) -> None:
    """The product of all of its own; no activation comes in."""
    torch.manual_seed(0)
    model = deep_linear((2, 2), 3, depth=4, width=5, bias=False).double()
    product = torch.linalg.multi_dot(list(model.parameters())[::-1])
    x = torch.randn(6, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(model(x), x.flatten(1) @ product.T)
    words = ["model=deep_linear", "train.max_steps=1", f"outputs={tmp_path}"]
    assert len(dlexp.run(words, quiet=True).layers) == 4

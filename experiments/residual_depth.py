"""Do skip connections keep gradients alive at any depth?

Through a block h + f(h) the error passes as delta (1 + f'): the 1 hands it on undivided, however small f' is,
where plain layers hand on f' alone. So nothing vanishes, and all is decided by what f' adds.

With ReLU and He's weights f' keeps the mean square, so the sum doubles it in each block: 2^(L/2) over L
blocks, 32 for 10 and 1e15 for 100. Four ways to have less: PyTorch's default weights, which add only a 36th;
f starts at 0, then exactly 1; f / sqrt(L), at most sqrt(e) = 1.65; or f sees h normalized: h^2 grows by 1 in
each block, from 2, so f' counts ever less, and in all it is sqrt(1 + L / 2), 7 for 100 blocks.
"""

import math
from collections.abc import Callable
from statistics import geometric_mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlexp.lab import (
    Experiment,
    Run,
    Runs,
    Verdict,
    accuracy,
    at_least,
    at_most,
    exceeds,
    given,
    matters,
    minus,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["residual_depth", "residual_depth_training"],
    quick="seeds=1 model.depth=5 optimizer.lr=0.1 train.max_steps=1"
    " arm='model=mlp initializer=pytorch_default',"
    "'model=residual_mlp initializer=kaiming_normal model.branch=plain'",
)
ARMS = {  # words -> what it is called here
    "model=mlp initializer=pytorch_default": "plain, default",
    "model=mlp initializer=kaiming_normal": "plain, He",
    "model=residual_mlp initializer=pytorch_default": "default weights",
    "model=residual_mlp initializer=kaiming_normal model.branch=plain": "He's weights",
    "model.branch=zero_init": "f starts at 0",
    "model.branch=scaled": "f / √L",
    "model.branch=pre_norm normalization=layer": "layer norm",
    "model.branch=pre_norm normalization=batch": "batch norm",
}
RESIDUAL = [words for words in ARMS if "mlp " not in words.replace("residual_mlp", "")]
NO_LESS = 0.99  # experiments say "1 or more": a percent is left to rounding and chance, where f' adds nothing


def arrives(run: Run) -> float:
    """What share of the error at the last block, or hidden layer, arrives at the first; first step."""
    layers = run.job.summary.get("layers") or []
    deltas = [(layer.get("first") or {}).get("delta_rms") for layer in layers]
    streams = [delta for delta, layer in zip(deltas, layers, strict=True) if layer.get("parameters") == 0]
    last = streams[-1] if streams else deltas[-2] if len(deltas) > 2 else None
    return deltas[0] / last if last and deltas[0] is not None else math.nan


def begun(runs: Runs, words: str) -> Runs:
    return runs.part("residual_depth").of(words)


def at_depth(runs: Runs, words: str, depth: int) -> dict[int, float]:
    return begun(runs, f"{words} model.depth={depth}").values(arrives)


def trained(runs: Runs, words: str) -> dict[str, Runs]:
    """Depth -> the runs at the best learning rate."""
    return runs.part("residual_depth_training").best().of(words).by("model.depth")


@lab.claim(
    "1:190",
    "Residual networks solve the vanishing gradient problem.",
    measures="share of the error at the last block x + f(x) that arrives at the first, before the first"
    " update; the least of 5 to 100 blocks",
    criterion=f">= {NO_LESS}, for each kind of block; control: <= 1e-3 through 20 plain, default layers",
)
def never_vanishes(runs: Runs) -> Verdict:
    """With any f and at any depth. So do plain layers with He's weights, as long as those are right: what the
    sum adds is that f may be drawn as it likes.
    """
    plain = at_most(at_depth(runs, "model=mlp initializer=pytorch_default", 20), 1e-3)
    found = {}
    for words in RESIDUAL:
        least = begun(runs, words).largest(lambda run: -arrives(run))
        found[ARMS[words]] = at_least({seed: -x for seed, x in least.items()}, NO_LESS)
    return given({"plain layers": plain}, over("kind of block", found))


@lab.claim(
    "1:190",
    "Theory: through blocks whose f starts at 0 the error passes as it is.",
    measures="share of the error at the last block that arrives at the first, distance from 1, the largest of"
    " 5 to 100 blocks",
    criterion="<= 0.01",
)
def as_it_is(runs: Runs) -> Verdict:
    return at_most(begun(runs, "model.branch=zero_init").largest(lambda run: abs(arrives(run) - 1)), 0.01)


@lab.claim(
    "1:190",
    "Residual networks solve the exploding gradient problem, which the heading of the notes names as well.",
    measures="share of the error at the last block x + f(x) that arrives at the first, 20 blocks",
    criterion="<= 100, for each kind of block (at 20: at 10, as planned, theory gives 32 for He's weights)",
)
def never_explodes(runs: Runs) -> Verdict:
    """The sum cannot lose the error, and it can multiply it: with He's weights in f and nothing to hold it
    back the square doubles in each block, as theory says (dashed, left).
    """
    found = {ARMS[words]: at_most(at_depth(runs, words, 20), 100) for words in RESIDUAL}
    return over("kind of block", found)


@lab.claim(
    "1:190",
    "A deep residual network can be trained where a plain one cannot.",
    measures="test accuracy after 8 epochs at the best rate of SGD, 30 residual blocks minus 30 plain layers"
    " with He's weights",
    criterion=">= 0.1, for each kind of block; a run that diverged counts as guessing; control: 5 plain"
    " layers are better than 30 by 0.1",
)
def trains(runs: Runs) -> Verdict:
    """A block is two layers, so the residual network is the deeper one. The gradient of plain He layers does
    not vanish, and yet they learn slowly; and what explodes hardly learns at any rate.
    """
    plain = trained(runs, "model=mlp initializer=kaiming_normal")
    few, many = (str(depth(map(int, plain), default=0)) for depth in (min, max))
    shallow, deep = (plain.get(depth, Runs([])).values(accuracy) for depth in (few, many))
    found = {}
    for words in RESIDUAL:
        if own := trained(runs, words).get(many):
            found[ARMS[words]] = matters(minus(own.values(accuracy), deep), 0.1)
    return given({"plain layers": exceeds(shallow, deep, by=0.1)}, over("kind of block", found))


@lab.picture(
    "What share of the error at the last block, or plain layer, arrives at the first, before any update;"
    " dots are seeds, dashed theory. Plain layers say so; the others are blocks. The middle panel has those"
    " that hold the sum back. Right: test accuracy after 8 epochs at the best learning rate."
)
def picture(runs: Runs) -> Figure:
    figure, axes = panels(3)
    theory = {
        "He's weights": lambda depth: 2 ** (depth / 2),
        "default weights": lambda depth: (1 + 1 / 36) ** (depth / 2),
        "f starts at 0": lambda _: 1.0,
        "f / √L": lambda depth: (1 + 1 / depth) ** (depth / 2),
        "layer norm": lambda depth: math.sqrt(1 + depth / 2),
    }
    wild = ("plain, default", "plain, He", "He's weights")
    words: list[list[tuple[float, str, str]]] = [[], [], []]
    for colour, (arm, name) in zip((*WORD_COLOURS, GREY), ARMS.items(), strict=False):
        k = 0 if name in wild else 1
        points = seen(begun(runs, arm), arrives)
        axes[k].set_yscale("log")
        ends = [dotted(axes[k], points, colour), dotted(axes[2], seen_trained(runs, arm), colour)]
        for place, end in zip((k, 2), ends, strict=True):
            words[place] += [(end, name, colour)] if end is not None else []
        if name in theory and points:
            axes[k].plot(
                list(points), [theory[name](d) for d in points], "--", color=BLACK, lw=1.2, alpha=0.8
            )
    axes[0].set_ylim(1e-20, 1e20)
    axes[2].set_ylim(0, 1)
    for axis in axes[:2]:
        say_y(axis, "error at the first block", "relative to the last one")
    say_y(axes[2], "test accuracy", "at the best learning rate of SGD")
    for axis, own in zip(axes, words, strict=True):
        axis.set_xlabel("blocks, or plain layers", color=GREY)
        beside(axis, [(share(axis, y), name, colour) for y, name, colour in own])
    return figure


def seen(runs: Runs, what: Callable[[Run], float]) -> dict[int, list[float]]:
    """Depth -> the numbers of its runs."""
    found = {int(depth): list(own.values(what).values()) for depth, own in runs.by("model.depth").items()}
    known = {depth: [x for x in xs if x > 0] for depth, xs in found.items()}
    return {depth: xs for depth, xs in known.items() if xs}


def seen_trained(runs: Runs, words: str) -> dict[int, list[float]]:
    return seen(runs.part("residual_depth_training").best().of(words), accuracy)


def dotted(axis: Axes, points: dict[int, list[float]], colour: str) -> float | None:
    """A dot for each number, a line through their geometric means; where it ends."""
    for depth, xs in points.items():
        axis.plot([depth] * len(xs), xs, "o", color=colour, ms=3, alpha=0.6)
    means = [geometric_mean(xs) for xs in points.values()]
    axis.plot(list(points), means, "-", color=colour, lw=1.4)
    return means[-1] if means else None


if __name__ == "__main__":
    lab.main()

"""Does changing the learning rate repair vanishing or exploding gradients?

A step is rate times gradient, and the gradient is there before the rate comes into it: the first one is the
same to the last bit, whatever the rate. A smaller rate makes small steps smaller. Only later, by where the
steps have led, does the rate change gradients: too long ones lead to where activations are flat.

And how small is too small? A float32 number has 24 bits, so w - u is w again if u < |w| / 2^24 or so: of
weights around 0.1 a step of 1e-10 changes those below 0.002, one in sixty; in float64 it changes all of
them. Adam divides each gradient by its own size and steps by the rate, however small the gradient.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlexp.lab import Experiment, Run, Runs, Verdict, accuracy, all_of, at_least, at_most, fact, over
from dlexp.lab.draw import panels
from dlexp.plots.style import GREY, WORD_COLOURS, beside, ink, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["lr_vs_gradient", "lr_vs_gradient_exploding", "lr_vs_gradient_slope"],
    quick="seeds=1 model.depth=5 optimizer.lr=0.1 initializer.gain=2.1213 activation=relu train.max_steps=2"
    " dtype=float32",
)
BITS = {"float16": 11, "float32": 24, "float64": 53}  # of the significand
SIZE = 0.1  # standard deviation of the weights in the arithmetic
UPDATES = [1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14, 1e-16, 1e-18, 1e-20]
STEPS = 20  # an epoch of the digits in batches of 64, about


@lab.measure(dtype=list(BITS), update=UPDATES, seeds=5)
def arithmetic(seed: int, dtype: str, update: float) -> dict[str, float]:
    """The share of 10,000 weights N(0, 0.1^2) that are other numbers after one step and after an epoch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    start = (SIZE * torch.randn(10_000, generator=generator, dtype=torch.float64)).to(getattr(torch, dtype))
    step, weights, once = torch.tensor(update).to(start.dtype), start, start - update
    for _ in range(STEPS):
        weights = weights - step
    return {f"after_{n}": float((w != start).double().mean()) for n, w in ((1, once), (STEPS, weights))}


def vanishing(runs: Runs, words: str = "") -> Runs:
    return runs.part("lr_vs_gradient").of(words)


def by_rate(runs: Runs, what: str | Callable[[Run], float]) -> dict[int, dict[float, float]]:
    """Seed -> learning rate, ascending -> number."""
    found: dict[int, dict[float, float]] = {}
    for rate, own in sorted(runs.by("optimizer.lr").items(), key=lambda item: float(item[0])):
        for seed, x in own.values(what).items():
            found.setdefault(seed, {})[float(rate)] = x
    return found


def most_won(numbers: dict[float, float]) -> float:
    """The most that is won by going from any rate to any smaller one."""
    ascending = list(numbers.values())
    pairs = [low - high for i, low in enumerate(ascending) for high in ascending[i + 1 :]]
    return max(pairs, default=math.nan)


def first_gradient(run: Run) -> float:
    """Decimal logarithm of the gradient norm of the first layer at step 0."""
    norms = run.profile("grad_norm")
    return math.log10(norms[0]) if norms and norms[0] > 0 else math.nan


@lab.claim(
    "0:22a",
    "Learning rates range from 1e-5 to 0.1.",
    measures="the rate of gradient descent that is best on validation, of 1e-3 to 100 or 1e-5 to 1",
    criterion="<= 0.1, for each network",
)
def range_of_rates(runs: Runs) -> Verdict:
    """Where the slope is small, as a sigmoid's 1/4, gradients are, and the rate has to be larger."""
    nets = {
        **{f"sigmoid, {d}": vanishing(runs, f"optimizer=sgd model.depth={d}") for d in (1, 2, 3)},
        "ReLU, 10": runs.part("lr_vs_gradient_exploding").of("initializer.gain=1.4142"),
    }
    found = {}
    for name, own in nets.items():
        rates = by_rate(own, "accuracy/validation")
        found[name] = at_most({seed: best_rate(numbers) for seed, numbers in rates.items()}, 0.1)
    return over("layers", found)


def best_rate(numbers: dict[float, float]) -> float:
    ended = {rate: x for rate, x in numbers.items() if math.isfinite(x)}
    return max(ended, key=lambda rate: ended[rate], default=math.nan)


@lab.claim(
    "0:22b",
    "With a gradient of 1e-6, rate times gradient is 1e-10.",
    measures="the product for the rates that the notes name, 1e-5 to 0.1",
    criterion="1e-10 within rounding, for each",
)
def product(runs: Runs) -> Verdict:
    """For one of them. With 0.1 the step is a thousand times as long."""
    rates = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    found = {f"{r:g}": fact(math.isclose(r * 1e-6, 1e-10), f"{r * 1e-6:.0e}") for r in rates}
    return over("rate", found)


@lab.claim(
    "0:28",
    "So after an epoch there is no change in the weights.",
    measures=f"share of weights N(0, 0.1²) with other bits after {STEPS} steps of 1e-10, by number format",
    criterion="<= 0.05, for each format",
)
def no_change(runs: Runs) -> Verdict:
    """In float32, PyTorch's format, it is literally so. In float64 all move, by nothing that counts."""
    arms = runs.part("arithmetic").of("update=1e-10").by("dtype").items()
    return over("format", {dtype: at_most(own.values(f"after_{STEPS}"), 0.05) for dtype, own in arms})


@lab.claim(
    "1:185",
    "A small gradient means that weights and biases of the initial layers are not updated effectively.",
    measures="change of the first layer by the first step, relative to its weights, against that of the last"
    " layer; sigmoid, SGD",
    criterion="<= 0.01, for each depth",
)
def first_layers(runs: Runs) -> Verdict:
    """The rate cancels in it."""

    def ratio(run: Run) -> float:
        changes = run.profile("update_ratio")
        return changes[0] / changes[-1] if changes and changes[-1] else math.nan

    arms = vanishing(runs, "optimizer=sgd optimizer.lr=0.1").by("model.depth").items()
    return over("depth", {depth: at_most(own.values(ratio), 0.01) for depth, own in arms})


@lab.claim(
    "3:329 4:35",
    "Small gradients make small updates, which stops learning.",
    measures="test accuracy of 5 sigmoid layers, each optimizer at its best rate",
    criterion="<= 0.2, for each optimizer",
)
def stops(runs: Runs) -> Verdict:
    """It stops gradient descent, even at a rate of 100. Adam's steps are as long as ever."""
    arms = vanishing(runs, "model.depth=5").best().by("optimizer").items()
    return over("optimizer", {word: at_most(own.values(accuracy), 0.2) for word, own in arms})


@lab.claim(
    "3:337a",
    "Vanishing gradients are fixed by decreasing the learning rate.",
    measures="the most that going to a smaller rate wins, 5 and 8 sigmoid layers, SGD, 1e-3 to 100: test"
    " accuracy; decades of the first layer's gradient at step 0",
    criterion="accuracy: >= 0.1; gradient: >= 0.1",
)
def smaller_against_vanishing(runs: Runs) -> Verdict:
    """The gradient is the same to the last bit at each rate. It is the other way around: the deeper the
    network, the greater the rate that it needs, and 3 layers learn at rate 1 only.
    """
    found = {}
    for depth in ("5", "8"):
        own = vanishing(runs, f"optimizer=sgd model.depth={depth}")
        for name, what, least in (("accuracy", accuracy, 0.1), ("gradient", first_gradient, 0.1)):
            won = {seed: most_won(numbers) for seed, numbers in by_rate(own, what).items()}
            found[f"{name}, depth {depth}"] = at_least(won, least)
    return all_of(found)


@lab.claim(
    "3:337b",
    "If the learning rate is too large the gradients can become too small.",
    measures="mean slope of the hidden layers after 5 epochs at rate 10 against rate 0.01, 3 layers",
    criterion="half or less, for each activation",
)
def too_large(runs: Runs) -> Verdict:
    """True of the later ones: long steps drive units to where they are flat, ReLUs to death."""
    found = {}
    for activation, own in runs.part("lr_vs_gradient_slope").by("activation").items():
        arms = own.by("optimizer.lr")
        low, high = (arms.get(rate, Runs([])).values(slope) for rate in ("0.01", "10"))
        found[activation] = at_most({seed: x / low.get(seed, math.nan) for seed, x in high.items()}, 0.5)
    return over("activation", found)


def slope(run: Run) -> float:
    """The mean slope of the hidden layers at the end, or where it diverged."""
    slopes = [x for x in run.profile("slope_mean", "last")[:-1] if math.isfinite(x)]
    return math.fsum(slopes) / len(slopes) if slopes else math.nan


@lab.claim(
    "3:350",
    "Exploding gradients are solved by decreasing the learning rate.",
    measures="ten ReLU layers that multiply the error by 1.5 each, at rates falling from 1 to 1e-5: whether"
    " runs end; decades of the first gradient; test accuracy at the best rate against that of He's weights",
    criterion="none diverges at 1e-4 and below; gradient smaller by >= 1; accuracy less by <= 0.05",
)
def smaller_against_exploding(runs: Runs) -> Verdict:
    """It keeps the run from ending in NaN, no more. The error grows as before, and steps short enough for the
    largest gradients are too short to learn by.
    """
    both = runs.part("lr_vs_gradient_exploding")
    own = both.of("initializer.gain=2.1213")
    low = own.of("optimizer.lr=1e-5,1e-4")
    diverged = low.largest(lambda run: float(run.job.status == "diverged"))
    grown = {seed: max(x.values()) - min(x.values()) for seed, x in by_rate(own, first_gradient).items()}
    best = both.best().by("initializer.gain")
    reached, wanted = (best.get(g, Runs([])).values(accuracy) for g in ("2.1213", "1.4142"))
    behind = {seed: wanted.get(seed, math.nan) - x for seed, x in reached.items()}
    return over(
        "what is asked",
        {
            "no divergence": at_most(diverged, 0),
            "smaller gradients": at_least(grown, 1),
            "learns as well": at_most(behind, 0.05),
        },
    )


@lab.picture(
    "Left: test accuracy over rates, sigmoid networks by number of layers, SGD; dots are seeds, the dotted"
    " line is guessing. Right: the share of weights around 0.1 that are other numbers after one step, by its"
    " length; dashed: theory, a weight moves if the step is more than half its last bit."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    left.set_xscale("log")
    right.set_xscale("log")
    left.axhline(0.1, color=GREY, ls=":", lw=1)
    ends = []
    depths = vanishing(runs, "optimizer=sgd").by("model.depth").items()
    for colour, (depth, own) in zip(WORD_COLOURS, depths, strict=False):
        best = dotted(left, own.by("optimizer.lr"), accuracy, colour, joined=True)
        ends.append((best, f"{depth} layer{'s' * (depth != '1')}", colour))
    left.set_ylim(0, 1)
    say_y(left, "test accuracy", "sigmoid layers, gradient descent")
    left.set_xlabel("learning rate", color=GREY)
    beside(left, [(share(left, y), name, colour) for y, name, colour in ends])
    along = [10 ** (-20 + i / 20) for i in range(361)]
    for colour, (dtype, own) in zip(WORD_COLOURS, runs.part("arithmetic").by("dtype").items(), strict=False):
        dotted(right, own.by("update"), "after_1", colour, joined=False)
        right.plot(along, [moved(update, BITS[dtype]) for update in along], "--", color=colour, lw=1.2)
        half = SIZE / 2 ** BITS[dtype]
        height, side = (0.35, "right") if dtype == "float32" else (0.65, "left")
        right.text(half, height, f"  {dtype}  ", color=ink(colour), weight="bold", ha=side)
    right.set_xticks([1e-18, 1e-12, 1e-6, 1e-2])
    say_y(right, "share of weights that change", "by one step, weights around 0.1")
    right.set_xlabel("length of the step", color=GREY)
    return figure


def dotted(
    axis: Axes, arms: dict[str, Runs], what: str | Callable[[Run], float], colour: str, *, joined: bool
) -> float:
    """A dot for each run along a number, and perhaps a line through their means; the largest mean."""
    means = {}
    for value, own in arms.items():
        xs = [x for x in own.values(what).values() if math.isfinite(x)]
        axis.plot([float(value)] * len(xs), xs, "o", color=colour, ms=3, alpha=0.6)
        means |= {float(value): math.fsum(xs) / len(xs)} if xs else {}
    if joined:
        axis.plot(list(means), list(means.values()), "-", color=colour, lw=1.4)
    return max(means.values(), default=0.0)


def moved(update: float, bits: int) -> float:
    """The share of weights N(0, 0.1^2) whose last bit is worth less than two such updates."""
    # A weight between 2^e and 2^(e+1) has a last bit of 2^(e + 1 - bits).
    edge = 2.0 ** math.ceil(math.log2(update) + bits)
    return 2 * NormalDist(0, SIZE).cdf(edge) - 1


if __name__ == "__main__":
    lab.main()

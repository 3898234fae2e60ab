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

from dlexp.lab import (
    Experiment,
    Run,
    Runs,
    Verdict,
    accuracy,
    all_of,
    at_least,
    at_most,
    fact,
    given,
    minus,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import GREY, WORD_COLOURS, beside, ink, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["lr_vs_gradient", "lr_vs_gradient_exploding", "lr_vs_gradient_slope"],
    quick="seeds=1 model.depth=5 optimizer.lr=0.1 initializer.gain=2.1213 activation=relu train.max_steps=2"
    " dtype=float32 update=1e-10",
)
BITS = {"float16": 11, "float32": 24, "float64": 53}  # of the significand
SIZE = 0.1  # standard deviation of the weights in the arithmetic
UPDATES = [1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14, 1e-16, 1e-18, 1e-20]
NAMES = {"relu": "ReLU"}
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
    measures="the learning rate that is best on validation: of 1e-3 to 100 (SGD) and 0.01 to 1 (Adam) for 1"
    " to 3 layers of sigmoids, of which the one least in favour; of 1e-5 to 1 (SGD) for ten layers of ReLU",
    criterion="<= 0.1, for each",
)
def range_of_rates(runs: Runs) -> Verdict:
    """Where the slope is small, as a sigmoid's 1/4, gradients are, and gradient descent wants a larger rate.
    Adam's steps do not depend on that.
    """
    found = {}
    for name, optimizer, most in (("SGD", "sgd", min), ("Adam", "adam", max)):
        nets = [vanishing(runs, f"optimizer={optimizer} model.depth={d}") for d in (1, 2, 3)]
        rates = [best_rates(own) for own in nets if own]
        each = {seed: most(own.get(seed, math.nan) for own in rates) for seed in (rates or [{}])[0]}
        found[f"{name}, sigmoid"] = at_most(each, 0.1)
    he = runs.part("lr_vs_gradient_exploding").of("initializer.gain=1.4142")
    return over("optimizer and activation", found | {"SGD, ReLU": at_most(best_rates(he), 0.1)})


def best_rates(runs: Runs) -> dict[int, float]:
    """Seed -> the rate that is best on validation."""
    return {seed: best_rate(numbers) for seed, numbers in by_rate(runs, "accuracy/validation").items()}


def best_rate(numbers: dict[float, float]) -> float:
    ended = {rate: x for rate, x in numbers.items() if math.isfinite(x)}
    return max(ended, key=lambda rate: ended[rate], default=math.nan)


@lab.claim(
    "0:22b",
    "With a gradient of 1e-6, rate times gradient is 1e-10.",
    measures="the product, for learning rates that the notes name, 1e-5 to 0.1",
    criterion="1e-10 within rounding, for each",
)
def product(runs: Runs) -> Verdict:
    """For one of them. With 0.1 the step is a thousand times as long."""
    rates = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    found = {f"{r:g}": fact(math.isclose(r * 1e-6, 1e-10), f"{r * 1e-6:.0e}") for r in rates}
    return over("learning rate", found)


@lab.claim(
    "0:28",
    "Where a step is 1e-10 long there is no change in the weights after an epoch.",
    measures=f"share of weights, N(0, 0.1²), that are other numbers after {STEPS} steps of 1e-10",
    criterion="<= 0.05, for each number format",
)
def no_change(runs: Runs) -> Verdict:
    """In float32, PyTorch's format, it is literally so of all weights but the smallest. In float64 all move,
    by nothing that counts.
    """
    arms = runs.part("arithmetic").of("update=1e-10").by("dtype").items()
    return over("number format", {dtype: at_most(own.values(f"after_{STEPS}"), 0.05) for dtype, own in arms})


@lab.claim(
    "1:185",
    "A small gradient means that the weights of the initial layers are not updated effectively.",
    measures="update/weight ratio of the first layer by that of the last in the first step, the larger one of"
    " 5 and 8 layers of sigmoids; control: norm of the gradient likewise",
    criterion="<= 0.01, for each optimizer; control: <= 0.01",
)
def first_layers(runs: Runs) -> Verdict:
    """The learning rate cancels in it. Adam divides each gradient by its own size: to it none is small. (At
    first it was judged by depth, of SGD alone; but in few layers the gradient is not small.)
    """
    own = vanishing(runs, "model.depth=5,8 optimizer.lr=0.1,0.01")
    small = at_most(own.largest(lambda run: ratio(run, "grad_norm")), 0.01)
    arms = {"SGD": own.of("optimizer=sgd"), "Adam": own.of("optimizer=adam")}
    moved = {name: arm.largest(lambda run: ratio(run, "update_ratio")) for name, arm in arms.items()}
    verdict = over("optimizer", {name: at_most(values, 0.01) for name, values in moved.items()})
    return given({"gradient of the first by that of the last": small}, verdict)


def ratio(run: Run, quantity: str) -> float:
    """A quantity of the first layer, relative to the last one's, at step 0."""
    layers = run.profile(quantity)
    return layers[0] / layers[-1] if layers and layers[-1] else math.nan


@lab.claim(
    "3:329 4:35",
    "Small gradients make small updates, which stops learning.",
    measures="test accuracy of 5 layers of sigmoids, in which the error vanishes, each optimizer at its best"
    " rate; control: of one layer",
    criterion="<= 0.2, for each optimizer; control: >= 0.9",
)
def stops(runs: Runs) -> Verdict:
    """It stops gradient descent, even at a rate of 100. Adam's steps are as long as ever."""
    shallow, deep = (vanishing(runs, f"model.depth={depth}").best() for depth in (1, 5))
    learns = at_least(shallow.of("optimizer=sgd").values(accuracy), 0.9)
    arms = {"SGD": deep.of("optimizer=sgd"), "Adam": deep.of("optimizer=adam")}
    found = {name: at_most(own.values(accuracy), 0.2) for name, own in arms.items()}
    return given({"one layer, SGD": learns}, over("optimizer", found))


@lab.claim(
    "3:337a",
    "Vanishing gradients are fixed by decreasing the learning rate.",
    measures="the most that going to a smaller rate wins, 5 and 8 layers of sigmoids, SGD, 1e-3 to 100: test"
    " accuracy; decades of the first layer's gradient at step 0; control: that gradient by the last layer's",
    criterion="accuracy: >= 0.1; gradient: >= 0.1; control: <= 0.01",
)
def smaller_against_vanishing(runs: Runs) -> Verdict:
    """The gradient is the same to the last bit at each rate. It is the other way around: the more layers,
    the less they learn at small rates.
    """
    found = {}
    small = at_most(vanishing(runs, "model.depth=5,8").largest(lambda run: ratio(run, "grad_norm")), 0.01)
    for depth in ("5", "8"):
        own = vanishing(runs, f"optimizer=sgd model.depth={depth}")
        for name, what, least in (("accuracy", accuracy, 0.1), ("gradient", first_gradient, 0.1)):
            won = {seed: most_won(numbers) for seed, numbers in by_rate(own, what).items()}
            found[f"{name}, depth {depth}"] = at_least(won, least)
    return given({"gradient of the first by that of the last": small}, all_of(found))


@lab.claim(
    "3:337b",
    "If the learning rate is too large the gradients can become too small.",
    measures="mean slope of the 3 hidden layers, by which gradients are multiplied, after 5 epochs at rate"
    " 10, relative to rate 0.01",
    criterion="0.5 or less, for each activation",
)
def too_large(runs: Runs) -> Verdict:
    """True of the later ones: long steps drive units to where they are flat, ReLUs to death."""
    found = {}
    for activation, own in runs.part("lr_vs_gradient_slope").by("activation").items():
        arms = own.by("optimizer.lr")
        low, high = (arms.get(rate, Runs([])).values(slope) for rate in ("0.01", "10"))
        found[NAMES.get(activation, activation)] = at_most(
            {seed: x / low.get(seed, math.nan) for seed, x in high.items()}, 0.5
        )
    return over("activation", found)


def slope(run: Run) -> float:
    """The mean slope of the hidden layers at the end, or where it diverged."""
    slopes = [x for x in run.profile("slope_mean", "last")[:-1] if math.isfinite(x)]
    return math.fsum(slopes) / len(slopes) if slopes else math.nan


@lab.claim(
    "3:350",
    "Exploding gradients are solved by decreasing the learning rate.",
    measures="ten layers of ReLU that multiply the error by 1.5 each, rates falling from 1 to 1e-5: decades"
    " by which the first gradient gets smaller; test accuracy at the best rate below that of He's weights;"
    " control: accuracy of these",
    criterion="gradient smaller by >= 1; accuracy less by <= 0.05; control: >= 0.9",
)
def smaller_against_exploding(runs: Runs) -> Verdict:
    """The error grows as before, and steps short enough for the largest gradients are too short to learn
    by.
    """
    own = exploding(runs)
    grown = {seed: max(x.values()) - min(x.values()) for seed, x in by_rate(own, first_gradient).items()}
    best = runs.part("lr_vs_gradient_exploding").best().by("initializer.gain")
    reached, wanted = (best.get(g, Runs([])).values(accuracy) for g in ("2.1213", "1.4142"))
    found = {
        "decades by which the gradient is smaller": at_least(grown, 1),
        "accuracy below He's": at_most(minus(wanted, reached), 0.05),
    }
    return given({"He's weights": at_least(wanted, 0.9)}, all_of(found))


@lab.claim(
    "3:350",
    "With exploding gradients a decreased learning rate keeps the run from ending in NaN.",
    measures="whether ten layers of ReLU that multiply the error by 1.5 each diverge (1) or not (0)",
    criterion="0 at each learning rate",
)
def smaller_against_nan(runs: Runs) -> Verdict:
    """That much of it is so, and no more."""
    rates = sorted(exploding(runs).by("optimizer.lr").items(), key=lambda item: float(item[0]))

    def diverged(run: Run) -> float:
        return float(run.job.status == "diverged") if run.made else math.nan

    ended = {rate: own.values(diverged) for rate, own in rates}
    return over("learning rate", {rate: at_most(values, 0) for rate, values in ended.items()})


def exploding(runs: Runs) -> Runs:
    return runs.part("lr_vs_gradient_exploding").of("initializer.gain=2.1213")


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

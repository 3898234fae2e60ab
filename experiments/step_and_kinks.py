"""Must an activation be differentiable?

The chain rule multiplies by f'(z), so that has to be a number, and one that says something:

    step       f' = 0 wherever there is one: all that lies below it gets a gradient of exactly 0
    step_ste   a step forward; backward its slope is taken as 1 for |z| < 1, straight through
    relu, abs  a kink at z = 0, on either side a slope; PyTorch takes 0 at the kink itself

A kink is one number out of all that z can be: for weights drawn at random the probability to meet it is 0,
and in float32 some 1e-8. What matters is not that f' is there everywhere but that it is not 0 everywhere.
"""

import math
from dataclasses import replace
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import Experiment, Runs, Verdict, all_of, at_least, at_most, given, identity, minus, over
from dlexp.lab.draw import panels
from dlexp.lab.verdict import INCONCLUSIVE, SUPPORTED
from dlexp.plots.style import GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(__file__, __doc__, quick="seeds=1 optimizer.lr=0.003 train.epochs=1")
AS_GOOD = 0.03  # of accuracy
CALLED = {"step_ste": "step straight-through", "nudged": "added to zeros", "smoothed": "under a root"}
KINKED = ("relu", "leaky_relu", "abs", "hardtanh")  # at 0, hardtanh at -1 and 1
EPSILON = 1e-3


def trained(seed: int, activation: str, epochs: int, lr: float) -> dict[str, Any]:
    """A network of two hidden layers of 64 units on digits, PyTorch's start, Adam."""
    import torch
    from torch import nn

    from dlexp.build.activations import Step, StepStraightThrough
    from dlexp.data.digits import read

    def nudged(z: torch.Tensor) -> torch.Tensor:
        """A zero gets a small fraction before the absolute value is taken."""
        return (z + EPSILON * (z == 0)).abs()

    def smoothed(z: torch.Tensor) -> torch.Tensor:
        return (z**2 + EPSILON**2).sqrt()

    own = {"step": Step(), "step_ste": StepStraightThrough(), "nudged": nudged, "smoothed": smoothed}
    f = own.get(activation) or getattr(nn.functional, activation, None) or getattr(torch, activation)
    torch.manual_seed(seed)
    layers = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)])
    start = layers[0].weight.detach().clone()
    every = read()
    x, y = every.inputs.flatten(1) / 8 - 1, every.targets
    order = torch.randperm(len(x))
    training, rest = order[:1500], order[1500:]
    at_kink, count = 0, 0

    def forward(batch: torch.Tensor) -> torch.Tensor:
        nonlocal at_kink, count
        a = x[batch]
        for layer in layers[:2]:
            z = layer(a)
            at_kink, count = at_kink + int((z.abs() == (activation == "hardtanh")).sum()), count + z.numel()
            a = f(z)
        return layers[2](a)

    optimizer = torch.optim.Adam(layers.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in training[torch.randperm(len(training))].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(batch), y[batch]).backward()
            optimizer.step()
    right = forward(rest).argmax(1) == y[rest]
    return {
        "moved": float((layers[0].weight - start).detach().abs().max()),
        "at a kink": at_kink / count,
        "accuracy": float(right.float().mean()),
        "weights": torch.cat([p.detach().flatten() for p in layers.parameters()]),
    }


@lab.measure(activation=["step", "step_ste", *KINKED, "tanh"], epochs=20, seeds=5)
def first_layer(seed: int, activation: str, epochs: int) -> dict[str, float]:
    """How far the farthest weight of the first layer moves in training, and how many z are at a kink."""
    return {key: x for key, x in trained(seed, activation, epochs, 0.003).items() if key != "weights"}


@lab.measure(at_zero=["nudged", "smoothed"], epochs=20, seeds=5)
def with_epsilon(seed: int, at_zero: str, epochs: int) -> dict[str, float]:
    """abs, trained from the same start with a small number added: to a zero, or under a root to each z."""
    plain, other = (trained(seed, activation, epochs, 0.003) for activation in ("abs", at_zero))
    return {
        "without": plain["accuracy"],
        "gain": other["accuracy"] - plain["accuracy"],
        "weights differ": float((plain["weights"] - other["weights"]).abs().max()),
    }


def best(runs: Runs) -> dict[str, dict[int, float]]:
    """Activation -> its test accuracy at the best learning rate."""
    arms = runs.part("step_and_kinks").best().by("activation").items()
    return {word: own.values("accuracy/test") for word, own in arms}


def short_of_tanh(runs: Runs) -> dict[str, dict[int, float]]:
    """Activation -> by how much its test accuracy differs from tanh's."""
    found = best(runs)
    tanh = found.pop("tanh", {})
    return {word: minus(own, tanh) for word, own in found.items()}


def needs_it(differences: dict[int, float]) -> Verdict:
    """Supported if it is 0.1 short of tanh, refuted if it is as good, give or take AS_GOOD."""
    short, as_good = at_most(differences, -0.1), at_least(differences, -AS_GOOD)
    if as_good.word == SUPPORTED:
        return short
    return short if short.word == SUPPORTED else replace(short, word=INCONCLUSIVE)


def tanh_learns(runs: Runs) -> dict[str, Verdict]:
    return {"tanh": at_least(best(runs).get("tanh", {}), 0.9)}


@lab.claim(
    "3:262",
    "An activation must be differentiable, for the chain rule needs its derivative.",
    measures="test accuracy of activations that somewhere have no derivative minus tanh's, each at its best"
    " rate of Adam",
    criterion=f"<= -0.1 for each; refuted where >= -{AS_GOOD}; control: tanh has 0.9",
)
def must_be_differentiable(runs: Runs) -> Verdict:
    """A kink costs nothing. A slope of 0 everywhere costs all that lies below it; and not even that needs a
    differentiable function: with a made-up slope on the way back, a step learns nearly as well as tanh. (At
    first only a gain of 0.1 over tanh would have refuted it, which no activation has.)
    """
    found = {CALLED.get(word, word): needs_it(own) for word, own in short_of_tanh(runs).items()}
    return given(tanh_learns(runs), over("activation", found))


@lab.claim(
    "3:262",
    "Theory: a kink of an activation is never met, so it does no harm.",
    measures="of ReLU, leaky ReLU, abs and hardtanh: largest share of z exactly at a kink in 20 epochs; least"
    " test accuracy minus tanh's, each at its best rate",
    criterion=f"<= 1e-6; >= -{AS_GOOD}",
)
def kinks_do_no_harm(runs: Runs) -> Verdict:
    met = runs.part("first_layer").of(f"activation={','.join(KINKED)}").largest("at a kink")
    short = [own for word, own in short_of_tanh(runs).items() if word in KINKED]
    least = {seed: min(own.get(seed, math.nan) for own in short) for own in short for seed in own}
    return all_of({"share of z": at_most(met, 1e-6), "accuracy": at_least(least, -AS_GOOD)})


@lab.claim(
    "3:262",
    "Theory: no weight below a step ever moves.",
    measures="how far the farthest weight of the first of two layers of steps moves in 20 epochs",
    criterion="exactly 0",
)
def below_a_step(runs: Runs) -> Verdict:
    """What a network with steps knows, its last layer learned, from features that were drawn at random."""
    return identity(runs.part("first_layer").of("activation=step").values("moved"), 0.0)


@lab.claim(
    "2:19-20",
    "Continuity must be added to the step: then it is differentiable.",
    measures="test accuracy of networks of steps minus tanh's, each at its best rate, by the slope taken on"
    " the way back",
    criterion=f"<= -0.1: without continuity no learning; refuted where >= -{AS_GOOD}; control: tanh has 0.9",
)
def continuity_is_needed(runs: Runs) -> Verdict:
    """What goes forward may jump. It is the way back that needs a slope, and takes one that is not the
    function's own.
    """
    slopes = {"step": "0, its own", "step_ste": "1 near the threshold"}
    found = {slopes[word]: needs_it(own) for word, own in short_of_tanh(runs).items() if word in slopes}
    return given(tanh_learns(runs), over("slope", found))


@lab.claim(
    "2:14-15",
    "What hidden layers should output is not known, so the cost must be changed for them to learn.",
    measures="how far the farthest weight of the first layer moves in 20 epochs by the cost of the outputs",
    criterion="<= 1e-6: with the cost left as it is, inner layers do not learn",
)
def cost_must_change(runs: Runs) -> Verdict:
    """Two garbled lines, read so: inner layers have no targets of their own. That was the trouble of networks
    of perceptrons, whose units are steps. What was changed was not the cost but the activation: with a slope,
    the chain rule tells each hidden unit what it should have done.
    """
    arms = runs.part("first_layer").by("activation").items()
    found = {CALLED.get(word, word): at_most(own.values("moved"), 1e-6) for word, own in arms}
    return over("activation", found)


@lab.claim(
    "3:249",
    "With abs, add a small fraction to a zero input to make it differentiable.",
    measures="test accuracy of abs with 0.001 added minus that without, same start: added to zeros, or"
    " sqrt(z² + 0.001²)",
    criterion=">= 0.01: it is needed; control: abs without it has 0.9",
)
def abs_needs_epsilon(runs: Runs) -> Verdict:
    """No z is ever 0, so the first changes nothing, and PyTorch would have a number at 0 anyway.
    The second does what the sentence wants, a function that is differentiable everywhere, and gains nothing.
    """
    arms = runs.part("with_epsilon").by("at_zero").items()
    found = {CALLED[word]: at_least(own.values("gain"), 0.01) for word, own in arms}
    plain = runs.part("with_epsilon").of("at_zero=nudged").values("without")
    return given({"abs": at_least(plain, 0.9)}, over("how", found))


@lab.claim(
    "3:249",
    "Theory: with abs, adding a small fraction to zeros changes no bit of the trained network.",
    measures="largest difference of a weight after 20 epochs from the same start",
    criterion="exactly 0",
)
def not_one_bit(runs: Runs) -> Verdict:
    return identity(runs.part("with_epsilon").of("at_zero=nudged").values("weights differ"), 0.0)


@lab.picture(
    "Left: the slope that the way back multiplies by, where lines coincide a little apart. Right: how far it"
    " moves the first layer in 20 epochs of Adam (rate 0.003), and the test accuracy at the best rate; a dot"
    " for each seed."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    accuracies = best(runs)
    zs = [i / 50 for i in range(-150, 151)]
    slopes = {
        "step": lambda z: 0 * z,
        "step_ste": lambda z: float(abs(z) < 1),
        "relu": lambda z: float(z > 0),
        "abs": lambda z: math.copysign(1, z),
        "tanh": lambda z: 1 - math.tanh(z) ** 2,
    }
    words, named = [], []
    for i, (word, own) in enumerate(runs.part("first_layer").by("activation").items()):
        colour = [*WORD_COLOURS, GREY][i % 8]
        if word in slopes:
            apart = 0.02 * (i - 2) if word != "tanh" else 0.0
            ys = [slopes[word](z) + apart for z in zs]
            left.plot(zs, ys, color=colour, lw=1.6)
            named.append((ys[-1], word, colour))
        accuracy = accuracies.get(word, {})
        both = [(x, accuracy[seed]) for seed, x in own.values("moved").items() if seed in accuracy]
        right.plot([x for x, _ in both], [y for _, y in both], "o", color=colour, ms=5, alpha=0.8)
        if both:
            words.append((fmean(y for _, y in both), word, colour))
    beside(left, [(share(left, y), word, colour) for y, word, colour in named])
    say_y(left, "f'", "as the way back has it")
    left.set_xlabel("z", color=GREY)
    say_y(right, "accuracy/test", "at the best learning rate")
    right.set_xlabel("farthest move of a weight of the first layer", color=GREY)
    right.set_ylim(top=1.0)
    beside(right, [(share(right, y), word, colour) for y, word, colour in words])
    return figure


if __name__ == "__main__":
    lab.main()

"""When do gradients vanish with depth?

Going back one layer, the error is multiplied by the layer's weights and by the slope of its activation:

    delta_l = (W^T delta_{l+1}) * f'(z_l),   so   |delta_l| <= max f' * ||W||_2 * |delta_{l+1}|

With equal layers that is one factor, over and over: the error falls, or grows, exponentially, and what
decides is the factor, slope times weights, not the slope alone. Mean-field theory gives it for wide layers,
sqrt(N Var(w) E[f'^2]): at most 0.25 for a sigmoid with Xavier's weights, sqrt(1/2) = 0.71 for ReLU with
Xavier's, 1 for ReLU with He's, and 0.58 even for a slope of exactly 1 with PyTorch's default weights.
"""

import math
from functools import partial

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
    changes,
    exceeds,
    given,
    identity,
    minus,
    near,
    over,
)
from dlexp.lab.draw import lines

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["vanishing_depth", "vanishing_depth_training"],
    quick="seeds=1 activation=sigmoid,relu initializer=xavier_normal model.depth=5 train.max_steps=10"
    " depth=4",
)
VANISHES = 0.01  # less than a hundredth of the error at the last hidden layer arrives at the first
STEEPEST = {"sigmoid": 0.25}  # the largest slope; 1 of the others


@lab.measure(activation=["sigmoid", "tanh", "relu"], depth=20, seeds=5)
def bound(seed: int, activation: str, depth: int) -> dict[str, float]:
    """By how much one layer at most exceeds max f' ||W||_2, sample by sample."""
    import torch

    steepest = STEEPEST.get(activation, 1.0)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(64, 64, generator=generator, dtype=torch.float64) for _ in range(depth)]
    x, zs = torch.randn(100, 64, generator=generator, dtype=torch.float64), []
    for weight in weights:
        zs.append((x @ weight.T / 8).requires_grad_())
        x = getattr(torch, activation)(zs[-1]).detach()
    delta, worst = torch.randn(100, 64, generator=generator, dtype=torch.float64), 0.0
    for z, weight in zip(reversed(zs[:-1]), reversed(weights[1:]), strict=True):
        (before,) = torch.autograd.grad(getattr(torch, activation)(z), z, delta @ weight / 8)
        most = steepest * torch.linalg.matrix_norm(weight / 8, 2) * delta.norm(dim=1)
        worst, delta = max(worst, float((before.norm(dim=1) / most).max())), before
    return {"excess": max(0.0, worst - 1), "ratio": worst}


def total(run: Run) -> float:
    """What share of the error at the last hidden layer arrives at the first, before the first update."""
    deltas = run.profile("delta_rms")
    return deltas[0] / deltas[-2] if len(deltas) > 2 and deltas[-2] else math.nan


def straight(run: Run) -> float:
    """R^2 of a straight line through log delta_rms of the hidden layers."""
    from statistics import correlation

    logs = [math.log(x) for x in run.profile("delta_rms")[:-1] if x > 0]
    return correlation(range(len(logs)), logs) ** 2 if len(logs) > 2 else math.nan


def slope(run: Run, end: str) -> float:
    """Mean over the hidden layers of the mean slope of their activations."""
    slopes = [x for x in run.profile("slope_mean", end)[:-1] if x is not None]
    return sum(slopes) / len(slopes) if slopes else math.nan


def decades(run: Run) -> float:
    """By how many powers of ten the error changes on its way; less than 0 if it shrinks."""
    return math.log10(total(run)) if total(run) > 0 else math.nan


def off(run: Run) -> float:
    return abs(decades(run))


def deep(runs: Runs, words: str) -> Runs:
    """The untrained networks of the greatest depth."""
    untrained = runs.part("vanishing_depth")
    deepest = max(untrained.by("model.depth"), key=int, default="20")
    return untrained.of(f"model.depth={deepest} {words}")


def vanishes(runs: Runs, activation: str) -> Verdict:
    arms = deep(runs, f"activation={activation}").by("initializer").items()
    return over("initializer", {word: at_most(own.values(total), VANISHES) for word, own in arms})


def where_sigmoid_vanishes(runs: Runs) -> dict[str, dict[str, dict[int, float]]]:
    """Initializer -> activation -> decades; only there is something to be alleviated, or explained."""
    found = {}
    for word, own in deep(runs, "").by("initializer").items():
        arms = {name: arm.values(decades) for name, arm in own.by("activation").items()}
        if all(x <= math.log10(VANISHES) for x in arms.get("sigmoid", {0: math.nan}).values()):
            found[word] = arms
    return found


def kept(runs: Runs, activation: str) -> Verdict:
    arms = where_sigmoid_vanishes(runs).items()
    found = {word: exceeds(own.get(activation, {}), own["sigmoid"], by=1.0) for word, own in arms}
    return over("initializer", found)


def guessing(runs: Runs) -> float:
    """Twice the accuracy of guessing among the classes."""
    classes = next(((run.job.summary.get("data") or {}).get("outputs") for run in runs), None)
    return 2 / classes if classes else math.nan


def learned(runs: Runs, words: str) -> Runs:
    """Trained networks, each arm at its best learning rate."""
    return runs.part("vanishing_depth_training").best().of(words)


@lab.claim(
    "0:20 1:183-184",
    "With n layers n small derivatives multiply: the gradient shrinks exponentially towards the first layer.",
    measures="R² of a straight line through the error's logarithm, log delta_rms, over the hidden layers of"
    " the deepest networks, before the first update",
    criterion="R² >= 0.98 wherever delta_rms changes by more than two decades",
)
def exponential(runs: Runs) -> Verdict:
    arms = [arm for arm in deep(runs, "").arms() if all(abs(x) > 2 for x in arm.values(decades).values())]
    seeds = dict.fromkeys(seed for arm in arms for seed in arm.values(straight))
    worst = {seed: min(arm.values(straight)[seed] for arm in arms) for seed in seeds}
    return at_least(worst, 0.98).says(f"the least straight of {len(arms)} arms")


@lab.claim(
    "1:57 4:25",
    "The sigmoid makes gradients vanish.",
    measures="share of the error at the last hidden layer that arrives at the first, deepest networks",
    criterion="<= 0.01 for each initializer",
)
def sigmoid_vanishes(runs: Runs) -> Verdict:
    """The slope of at most 1/4 can be made up for by large weights, such as N(0, 1), which are sqrt(N) times
    as large as Xavier's. It is never the slope alone.
    """
    return vanishes(runs, "sigmoid")


@lab.claim(
    "1:57",
    "Theory: with Xavier's weights each sigmoid layer multiplies the error by a quarter.",
    measures="factor of delta_rms per layer, deepest networks, against the slope at 0 times the gain, 0.25",
    criterion="within 10 % of it",
)
def a_quarter(runs: Runs) -> Verdict:
    """A little less, as inputs of a sigmoid are not all 0, where it is steepest."""
    factors = deep(runs, "activation=sigmoid initializer=xavier_normal").values("delta_factor_first")
    return near(factors, 0.25, within=0.1)


@lab.claim(
    "1:183-184",
    "Theory: no layer multiplies the error by more than its steepest slope times the norm of its weights.",
    measures="by how much |delta_l| at most exceeds max f' ||W||_2 |delta_{l+1}|, as a share of it; of any"
    " sample and layer, float64",
    criterion="not at all, to rounding (1e-12), for each activation",
)
def bounded(runs: Runs) -> Verdict:
    arms = runs.part("bound").by("activation").items()
    return all_of({word: identity(own.largest("excess"), 1e-12) for word, own in arms})


@lab.claim(
    "1:66",
    "Tanh has vanishing gradients, too.",
    measures="share of the error at the last hidden layer that arrives at the first, deepest networks",
    criterion="<= 0.01 for each initializer",
)
def tanh_vanishes(runs: Runs) -> Verdict:
    """Its slope is 1 at the origin, so it is for the weights to decide: with Xavier's the error falls by a
    power of the depth, about 1 / sqrt(L) in theory, with smaller ones exponentially.
    """
    return vanishes(runs, "tanh")


@lab.claim(
    "1:78",
    "ReLU has vanishing gradients, too.",
    measures="share of the error at the last hidden layer that arrives at the first, deepest networks",
    criterion="<= 0.01 for each initializer",
)
def relu_vanishes(runs: Runs) -> Verdict:
    """Half of the units pass nothing, which halves the variance: weights of variance 2/N make up for it
    (He), 1/N (Xavier) and 1/(3N) (PyTorch's default) do not.
    """
    return vanishes(runs, "relu")


@lab.claim(
    "1:189 2:24 3:144a 3:256 3:335",
    "ReLU has slope 1 for positive inputs, so its gradients do not vanish: it solves the problem.",
    measures="decades, either way, between the error at the first hidden layer and at the last, deepest"
    " networks",
    criterion="2 at most, either way, for each initializer",
)
def relu_solves(runs: Runs) -> Verdict:
    """The notes also say the opposite (1:78). Both are right, each for other weights: it takes He's. With
    N(0, 1) the error explodes, which is no solution either.
    """
    arms = deep(runs, "activation=relu").by("initializer").items()
    return over("initializer", {word: at_most(own.values(off), 2) for word, own in arms})


@lab.claim(
    "4:37a",
    "ReLU alleviates vanishing gradients.",
    measures="decades by which the error changes on its way to the first hidden layer, deepest networks, ReLU"
    " against sigmoid",
    criterion="ReLU keeps a decade more, for each initializer with which the sigmoid loses two",
)
def relu_alleviates(runs: Runs) -> Verdict:
    return kept(runs, "relu")


@lab.claim(
    "3:233a",
    "The absolute value is less prone to vanishing gradients than the sigmoid.",
    measures="decades by which the error changes on its way to the first hidden layer, deepest networks, abs"
    " against sigmoid",
    criterion="abs keeps a decade more, for each initializer with which the sigmoid loses two",
)
def abs_alleviates(runs: Runs) -> Verdict:
    """Its slope is 1 in size everywhere: it passes what a linear layer passes, and explodes as easily."""
    return kept(runs, "abs")


@lab.claim(
    "3:233b",
    "Gradients vanish where the activation's derivative is near zero, and not without.",
    measures="share of the error at the last hidden layer that arrives at the first, deepest networks,"
    " without activation: every derivative is exactly 1",
    criterion=">= 0.01 for each initializer",
)
def slope_alone(runs: Runs) -> Verdict:
    """PyTorch's default weights lose a factor of sqrt(1/3) = 0.58 in each layer by themselves."""
    arms = deep(runs, "activation=identity").by("initializer").items()
    return over("initializer", {word: at_least(own.values(total), VANISHES) for word, own in arms})


@lab.claim(
    "3:327",
    "Gradients vanish because the range of the activation's outputs is narrow, as the sigmoid's.",
    measures="of the decades that the sigmoid loses against no activation, the share that hardtanh loses,"
    " too: range -1..1, slope 1 within; deepest networks",
    criterion="half or more, for each initializer with which the sigmoid loses two decades",
)
def narrow_range(runs: Runs) -> Verdict:
    """A narrow range costs little as long as the slope is 1: what the sigmoid lacks is slope. (Judged against
    ReLU at first, whose range has no end, but which loses error for a reason of its own: half of it is flat.)
    """
    found = {}
    for word, own in where_sigmoid_vanishes(runs).items():
        none, narrow = (own.get(name, {}) for name in ("identity", "hardtanh"))
        lost, sigmoid = minus(none, narrow), minus(none, own["sigmoid"])
        found[word] = at_least({seed: x / sigmoid[seed] for seed, x in lost.items()}, 0.5)
    return over("initializer", found)


@lab.claim(
    "1:176",
    "In shallow networks vanishing gradients are no problem.",
    measures="test accuracy of sigmoid networks of 1 and 2 hidden layers at the best rate of SGD",
    criterion=">= 0.95 for each; control: so has ReLU",
)
def shallow_is_fine(runs: Runs) -> Verdict:
    found = {}
    for depth, own in learned(runs, "optimizer=sgd model.depth=1,2").by("model.depth").items():
        sigmoid, relu = (own.of(f"activation={name}").values(accuracy) for name in ("sigmoid", "relu"))
        found[depth] = given({"ReLU": at_least(relu, 0.95)}, at_least(sigmoid, 0.95))
    return over("depth", found)


@lab.claim(
    "1:162 1:177 3:331 3:364-367",
    "With more layers the gradient gets too small to train: it is a problem of deep networks.",
    measures="test accuracy of sigmoid networks at the best rate of SGD, by depth",
    criterion="<= twice what guessing gets (0.2 of ten classes) for 5 hidden layers and more; control: >="
    " 0.95 for 1 and 2",
)
def deep_does_not_train(runs: Runs) -> Verdict:
    arms = learned(runs, "activation=sigmoid optimizer=sgd").by("model.depth").items()
    deeper = {f"depth {d}": at_most(own.values(accuracy), guessing(own)) for d, own in arms if int(d) >= 5}
    shallow = {f"depth {d}": at_least(own.values(accuracy), 0.95) for d, own in arms if int(d) <= 2}
    return given({"shallow networks": all_of(shallow)}, all_of(deeper))


@lab.claim(
    "0:30 4:35",
    "Where gradients are tiny the weights stay as they are: learning stops.",
    measures="test accuracy of a sigmoid network of 5 hidden layers, each optimizer at its best rate",
    criterion="<= twice what guessing gets (0.2 of ten classes) for each optimizer; controls: at first at"
    " most 0.01 of the error arrives; ReLU has 0.9",
)
def learning_stops(runs: Runs) -> Verdict:
    """Adam divides each gradient by its own size, so a tiny one moves its weight as far as a large one: what
    stops is plain gradient descent.
    """
    found = {}
    for word, own in learned(runs, "model.depth=5").by("optimizer").items():
        sigmoid, relu = (own.of(f"activation={name}") for name in ("sigmoid", "relu"))
        controls = {
            "arriving": at_most(sigmoid.values(total), VANISHES),
            "ReLU": at_least(relu.values(accuracy), 0.9),
        }
        found[word] = given(controls, at_most(sigmoid.values(accuracy), guessing(sigmoid)))
    return over("optimizer", found)


@lab.claim(
    "3:322",
    "The gradients of the activation function become small as the network learns.",
    measures="mean slope of the activations of 3 hidden layers before training minus after, relative to the"
    " largest slope, best rate of SGD",
    criterion="0.05 or more, for each activation; control: test accuracy >= 0.9",
)
def shrink_by_learning(runs: Runs) -> Verdict:
    """Slopes do. What is multiplied from layer to layer is slope times weights, and weights grow meanwhile:
    in the same runs the factor of the error per layer rises. So the error does not vanish by learning.
    """
    found = {}
    for word, own in learned(runs, "optimizer=sgd model.depth=3").by("activation").items():
        before, after = (own.values(partial(slope, end=end)) for end in ("first", "last"))
        less = {seed: x / STEEPEST.get(word, 1.0) for seed, x in minus(before, after).items()}
        found[word] = given({"accuracy": at_least(own.values(accuracy), 0.9)}, changes(less, 0.05))
    return over("activation", found)


@lab.picture(
    "The error at each hidden layer, relative to the last one, before the first update; geometric mean of"
    " seeds. Dashed: theory. Left Xavier's weights, right the activation ReLU."
)
def picture(runs: Runs) -> Figure:
    left = deep(runs, "initializer=xavier_normal activation=sigmoid,tanh,relu,abs,softsign")
    right = deep(runs, "activation=relu")
    return lines(
        {"delta_rms, Xavier's weights": left.by("activation"), "delta_rms, ReLU": right.by("initializer")},
        lambda run: [x / run.profile("delta_rms")[-2] for x in run.profile("delta_rms")[:-1]],
        theory={
            "delta_rms, Xavier's weights": {"sigmoid": 0.25, "relu": math.sqrt(1 / 2), "abs": 1.0},
            "delta_rms, ReLU": {
                "kaiming_normal": 1.0,
                "xavier_normal": math.sqrt(1 / 2),
                "pytorch_default": math.sqrt(1 / 6),
            },
        },
        means="relative to the last hidden layer",
    )


if __name__ == "__main__":
    lab.main()

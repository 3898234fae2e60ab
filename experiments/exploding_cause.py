"""What makes gradients explode?

Going back one layer multiplies the error by weights and slope. For wide layers of N units with weights from
N(0, g^2/N), g the gain, mean-field theory gives the factor

    chi = g sqrt(E[f'(z)^2]),   z ~ N(0, q),   where q = g^2 E[f(z)^2] from layer to layer

A slope of at most 1 can only make it smaller than the weights do: g = 3 gives 3 for a linear layer,
3 / sqrt(2) = 2.12 for ReLU, 1.36 for tanh and 0.53 for a sigmoid. So weights decide, and a bounded slope
slows an explosion without preventing it: of ever more saturated tanh units the few in the middle pass ever
more, chi ~ 0.73 sqrt(g), as long as there are some among the N.
"""

import math
from collections.abc import Callable, Iterable
from statistics import fmean, geometric_mean
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import (
    Arm,
    Experiment,
    Run,
    Runs,
    Verdict,
    accuracy,
    all_of,
    at_least,
    at_most,
    exceeds,
    fact,
    given,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    quick="seeds=1 activation=relu,tanh initializer.gain=1.4142,3 optimizer.lr=1e-3 train.epochs=1 depth=2,4",
)
RATE = 1e-3  # of the one step that is looked at
HIDDEN = 128  # units of a layer: wide enough for the theory of wide layers


@lab.measure(
    activation=["identity", "relu", "tanh", "sigmoid"],
    gain=[0.5, 1, 1.4142, 2, 3, 10, 30, 100, 1000],
    depth=[2, 20],
    weights=["own"],
    seeds=5,
)
def layers(seed: int, activation: str, gain: float, depth: int, weights: str) -> dict[str, Any]:
    """The error at each hidden layer, and one step of gradient descent, on 100 digits in float64."""
    return look(seed, activation, gain, depth, weights)


@lab.measure(activation=["tanh"], gain=[0.5, 1, 1.4142, 2, 3], depth=[2, 20], weights=["shared"], seeds=5)
def times(seed: int, activation: str, gain: float, depth: int, weights: str) -> dict[str, Any]:
    """The same with one matrix for all layers but the first: a recurrent net, its layers the time steps."""
    return look(seed, activation, gain, depth, weights)


def named(activation: str) -> Any:
    import torch

    return torch.nn.Identity() if activation == "identity" else getattr(torch, activation)


def look(seed: int, activation: str, gain: float, depth: int, weights: str) -> dict[str, Any]:
    import torch

    from dlexp.data.digits import read

    f, every = named(activation), read()
    pixels, classes = every.inputs[:100].flatten(1).double(), every.targets[:100]
    x = (pixels - pixels.mean()) / pixels.std()
    generator = torch.Generator().manual_seed(seed)

    def drawn(outputs: int, inputs: int) -> torch.Tensor:
        matrix = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        return (gain / math.sqrt(inputs) * matrix).requires_grad_()

    matrices = [drawn(HIDDEN, 64), *(drawn(HIDDEN, HIDDEN) for _ in range(depth - 1)), drawn(10, HIDDEN)]
    if weights == "shared":
        matrices[1:-1] = [matrices[1]] * (depth - 1)
    own = list(dict.fromkeys(matrices))

    def forward() -> tuple[torch.Tensor, list[torch.Tensor]]:
        signal, zs = x, []
        for matrix in matrices:
            zs.append(signal @ matrix.T)
            signal = f(zs[-1])
        return torch.nn.functional.cross_entropy(zs[-1], classes), zs

    loss, zs = forward()
    said = zs[-1].detach().softmax(1)
    grads = torch.autograd.grad(loss, [*own, *zs[:-1]])
    deltas = [float(delta.norm()) for delta in grads[len(own) :]]
    with torch.no_grad():
        for w, grad in zip(own, grads, strict=False):
            w -= RATE * grad
        turned = (forward()[1][-1].softmax(1) - said).abs().sum(1) / 2
    return {
        "deltas": deltas,
        "factor": (deltas[0] / deltas[-1]) ** (1 / (depth - 1)),
        "decades": math.log10(deltas[0] / deltas[-1]),
        "turned": float(turned.nan_to_num(1.0).mean()),  # a prediction that is no number is another one
    }


@lab.measure(activation=["identity", "relu", "tanh", "sigmoid"])
def steepest(activation: str) -> dict[str, float]:
    """The largest slope of an activation between -50 and 50."""
    import torch

    z = torch.linspace(-50, 50, 100_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(named(activation)(z).sum(), z)
    return {"slope": float(slope.abs().max())}


def theory(activation: str, gain: float, depth: int) -> float:
    """What mean-field theory gives for the factor per layer, on the way from layer `depth` to layer 1."""
    import numpy as np

    f = {"identity": lambda z: z, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}.get(
        activation, lambda z: (1 + np.tanh(z / 2)) / 2
    )
    normal = np.linspace(-8, 8, 200_001)
    density = np.exp(-(normal**2) / 2)
    density /= density.sum()
    q, logs = gain**2, []  # inputs have mean square 1
    for _ in range(depth - 1):
        value = f(math.sqrt(q) * normal)
        slope = np.gradient(value, math.sqrt(q) * normal)
        logs.append(math.log(gain * math.sqrt(float(density @ slope**2))))
        q = gain**2 * float(density @ value**2)
    return math.exp(math.fsum(logs) / len(logs))


def deepest(runs: Runs, words: str = "") -> Runs:
    own = runs.part("layers").of(words)
    return own.of(f"depth={max(own.by('depth'), key=int, default='20')}")


def exploding_by_activation(runs: Runs) -> dict[str, list[Arm]]:
    """The deepest networks in which the error grows a hundredfold or more, whatever the seed."""
    found: dict[str, list[Arm]] = {}
    for arm in deepest(runs).arms():
        if min(arm.values("decades").values()) >= 2:
            found.setdefault(arm["activation"], []).append(arm)
    return found


def trained(runs: Runs, words: str = "") -> Runs:
    """Each arm at its best learning rate."""
    return runs.part("exploding_cause").best().of(words)


def straight(run: Run) -> float:
    """R^2 of a straight line through the logarithms of the error over depth."""
    from statistics import correlation

    logs = [math.log(x) for x in (run.measured or {}).get("deltas", [])]
    return correlation(range(len(logs)), logs) ** 2 if len(logs) > 2 else math.nan


def slope_times(run: Run) -> float:
    """By which factor learning changes the mean slope of the hidden layers."""
    first, last = (run.profile("slope_mean", end)[:-1] for end in ("first", "last"))
    return math.fsum(last) / math.fsum(first) if first and math.fsum(first) else math.nan


def weights_times(run: Run) -> list[float]:
    """By which factor learning changes the norm of the weights of each layer, also of a run that diverged."""
    first, last = (run.profile("weight_norm", end) for end in ("first", "last"))
    return [after / before for before, after in zip(first, last, strict=True)]


@lab.claim(
    "0:19",
    "If the derivatives are large the gradient grows exponentially.",
    measures="R² of a straight line through log |delta| over the layers of a linear net; share of the gain"
    " by which its factor per layer is off the gain",
    criterion="R² >= 0.98 at every gain above 1, greatest depth; factor = gain within 3 %",
)
def exponential(runs: Runs) -> Verdict:
    """What counts is the derivative of a whole layer, slope times weights: its factor is the gain."""
    arms = [a for a in deepest(runs, "activation=identity").arms() if float(a["gain"]) > 1]
    seeds = dict.fromkeys(seed for arm in arms for seed in arm.values("factor"))
    worst = {seed: min(arm.values(straight)[seed] for arm in arms) for seed in seeds}
    off = {seed: max(abs(a.values("factor")[seed] / float(a["gain"]) - 1) for a in arms) for seed in seeds}
    gains = f"the worst of {len(arms)} gains"
    return all_of({f"R², {gains}": at_least(worst, 0.98), f"off the gain, {gains}": at_most(off, 0.03)})


@lab.claim(
    "3:136",
    "The linear activation can lead to vanishing gradients.",
    measures="decades that the error grows on its way to the first of 20 layers of a linear net",
    criterion="<= -2, a hundredth, for each gain up to 3",
)
def linear_vanishes(runs: Runs) -> Verdict:
    """With small weights, as any activation does. Its own slope of 1 takes nothing away."""
    arms = deepest(runs, "activation=identity").by("gain").items()
    return over("gain", {g: at_most(own.values("decades"), -2) for g, own in arms if float(g) <= 3})


@lab.claim(
    "3:340",
    "Gradients explode where the derivative of the activation goes to infinity, as with wide-ranging ReLU.",
    measures="largest slope on [-50, 50] of each activation with which the error grows a hundredfold over 20"
    " layers at some gain; largest factor of the error per layer",
    criterion="slope > 1, for each",
)
def infinite_slope(runs: Runs) -> Verdict:
    """Gradients explode, and no slope exceeds 1. ReLU's slope is 0 or 1, so behind equal weights ReLU passes
    less than no activation at all.
    """
    found = {}
    for activation, own in exploding_by_activation(runs).items():
        slope = runs.part("steepest").of(f"activation={activation}")[0].number("slope")
        most = max(max(arm.values("factor").values()) for arm in own)
        said = f"slope at most {slope:.3g}, factors up to {most:.3g}"
        found[activation] = fact(slope > 1 + 1e-12, said, slope)
    return over("activation", found)


@lab.claim(
    "3:348b",
    "The derivative of tanh is bounded, so it does not suffer from exploding gradients.",
    measures="factor of the error per layer, 20 tanh layers, where a linear net would explode",
    criterion="<= 1, for each gain above 1",
)
def tanh_does_not(runs: Runs) -> Verdict:
    """It explodes, if slowly. That ends only with absurd weights: of N units some 0.8 N / g
    have |z| < 1, which at g = 1000 is a tenth of a unit of 128, and nothing passes. The theory, of endless
    width, does not see that.
    """
    arms = deepest(runs, "activation=tanh").by("gain").items()
    return over("gain", {gain: at_most(own.values("factor"), 1) for gain, own in arms if float(gain) > 1})


@lab.claim(
    "3:344",
    "Explosion is most likely in deep networks: the factors are multiplied at each layer.",
    measures="decades that the error grows on its way to the first hidden layer, 20 layers against 2",
    criterion="deepest - shallowest >= 1, for each activation at the least gain that makes it explode",
)
def deeper_is_worse(runs: Runs) -> Verdict:
    found = {}
    for activation, arms in exploding_by_activation(runs).items():
        gain = min((arm["gain"] for arm in arms), key=float)
        own = runs.part("layers").of(f"activation={activation} gain={gain}").by("depth")
        deep, shallow = (own[end(own, key=int)].values("decades") for end in (max, min))
        found[f"{activation} with gain {gain}"] = exceeds(deep, shallow, by=1)
    return over("activation", found)


@lab.claim(
    "4:39",
    "Exploding gradients occur often in deep or recurrent networks.",
    measures="decades that the error of a tanh net grows over 19 layers, or over 19 uses of one matrix",
    criterion=">= 2, for each gain up to 3",
)
def deep_or_recurrent(runs: Runs) -> Verdict:
    """Depth and time alone do nothing: both kinds need weights that amplify, and do so alike."""
    found = {}
    for label, part in {"deep": deepest(runs, "activation=tanh"), "recurrent": last_time(runs)}.items():
        arms = part.by("gain").items()
        found[label] = over(
            "gain", {g: at_least(own.values("decades"), 2) for g, own in arms if float(g) <= 3}
        )
    return all_of(found)


def last_time(runs: Runs) -> Runs:
    own = runs.part("times").of("activation=tanh")
    return own.of(f"depth={max(own.by('depth'), key=int, default='20')}")


@lab.claim(
    "3:373-374",
    "Too large weights at the start make gradients explode, too small ones make them vanish.",
    measures="decades that the error grows on its way to the first of 20 hidden layers",
    criterion=">= 2 at gain 10 and <= -2 at gain 0.5, for each activation",
)
def large_and_small(runs: Runs) -> Verdict:
    """A sigmoid's slope of at most 1/4 eats up a gain of 10. What is too large depends on the activation, and
    there is a gain that makes each of the four explode.
    """
    found = {}
    for activation, own in deepest(runs).by("activation").items():
        parts = {
            "gain 10": at_least(own.of("gain=10").values("decades"), 2),
            "gain 0.5": at_most(own.of("gain=0.5").values("decades"), -2),
        }
        found[activation] = all_of(parts)
    return over("activation", found)


@lab.claim(
    "3:342",
    "Large gradients make updates unstable: predictions change suddenly.",
    measures="total variation between the probabilities that are predicted before and after one step at rate"
    " 0.001, 20 layers: where the error explodes (least over gains) against the gain where it changes least",
    criterion="0.2 more, for each activation; control: at most 0.1 where the error changes least",
)
def unstable(runs: Runs) -> Verdict:
    """First judged by the loss after a step at rate 0.1. But the loss cannot jump where activations are
    bounded, whatever is predicted, and at that rate predictions change without an explosion, too.
    """
    found, controls = {}, {}
    for activation, arms in exploding_by_activation(runs).items():
        every = deepest(runs, f"activation={activation}").arms()
        calm = min(every, key=lambda arm: abs(fmean(arm.values("decades").values()))).values("turned")
        least = {seed: min(arm.values("turned")[seed] for arm in arms) for seed in calm}
        controls[f"{activation}, calm"] = at_most(calm, 0.1)
        found[activation] = exceeds(least, calm, by=0.2)
    return given(controls, over("activation", found))


@lab.claim(
    "3:324",
    "Exploding gradients can make the weights very large.",
    measures="norm of a layer's weights after training, or when it diverged, relative to the start; gain 3,"
    " the layer and the rate of SGD at which it is largest",
    criterion="10 or more, for each activation",
)
def weights_huge(runs: Runs) -> Verdict:
    """By theory ten ReLU layers multiply the error by 2.12^9 = 870, ten tanh layers by 1.36^9 = 16."""
    own = runs.part("exploding_cause").of("initializer.gain=3").by("activation").items()
    return over("activation", {name: at_least(farthest(arms, max), 10) for name, arms in own})


@lab.claim(
    "3:324",
    "Exploding gradients can make the weights very small.",
    measures="norm of a layer's weights after training, or when it diverged, relative to the start; gain 3,"
    " the layer and the rate of SGD at which it is smallest",
    criterion="a tenth or less, for each activation",
)
def weights_tiny(runs: Runs) -> Verdict:
    """A step that is thousands of times too long adds to all weights and takes them from none."""
    own = runs.part("exploding_cause").of("initializer.gain=3").by("activation").items()
    return over("activation", {name: at_most(farthest(arms, min), 0.1) for name, arms in own})


def farthest(runs: Runs, end: Callable[[Iterable[float]], float]) -> dict[int, float]:
    """Seed -> the greatest or least change of the weights of a layer at any rate."""
    found: dict[int, list[float]] = {}
    for run in runs:
        found.setdefault(run.seed, []).extend(x for x in weights_times(run) if not math.isnan(x))
    return {seed: end(xs) if xs else math.nan for seed, xs in found.items()}


@lab.claim(
    "3:324 3:364-367",
    "Where gradients explode, those of the activation become very large as the network learns.",
    measures="mean slope of ten hidden layers after training, relative to before; factor of the error per"
    " layer after against before; gain 3, best rate of SGD",
    criterion="slope >= 1.05 times as large, factor larger by >= 0.05, for each activation",
)
def as_it_learns(runs: Runs) -> Verdict:
    """They become smaller: it is learning that tames them."""
    found = {}
    for activation, own in trained(runs, "initializer.gain=3").by("activation").items():
        after, before = (own.values(f"delta_factor_{end}") for end in ("last", "first"))
        parts = {"slope": at_least(own.values(slope_times), 1.05), "factor": exceeds(after, before, by=0.05)}
        found[activation] = all_of(parts)
    return over("activation", found)


@lab.claim(
    "3:364-367",
    "Exploding gradients make it difficult for the network to learn.",
    measures="test accuracy at the best rate of SGD, He's gain sqrt(2) against gain 3, 10 hidden layers",
    criterion="larger by >= 0.05, for each activation; control: with He's gain >= 0.8",
)
def difficult_to_learn(runs: Runs) -> Verdict:
    found, controls = {}, {}
    for activation, own in trained(runs).by("activation").items():
        good, bad = (own.of(f"initializer.gain={gain}").values(accuracy) for gain in ("1.4142", "3"))
        found[activation] = exceeds(good, bad, by=0.05)
        controls[f"{activation} with He's gain"] = at_least(good, 0.8)
    return given(controls, over("activation", found))


@lab.picture(
    "Left: the factor of the error per layer, 20 layers; dots are seeds, dashed mean-field theory, the dotted"
    " line is 1. At gain 1000 hardly one of 128 tanh units is not saturated, and theory, of endless width,"
    " fails. Right: the error at each of 20 layers relative to the last, gain 3, mean of seeds."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    left.set_xscale("log")
    left.set_yscale("log")
    left.axhline(1, color=GREY, ls=":", lw=1)
    depth = max((int(d) for d in runs.part("layers").by("depth")), default=20)
    ends, words = [], []
    for colour, (name, own) in zip(WORD_COLOURS, deepest(runs).by("activation").items(), strict=False):
        for gain, arm in own.by("gain").items():
            seen = list(arm.values("factor").values())
            left.plot([float(gain)] * len(seen), seen, "o", color=colour, ms=3, alpha=0.7)
        gains = sorted({float(gain) for gain in own.by("gain")})
        along = [gains[0] * (gains[-1] / gains[0]) ** (i / 20) for i in range(21)]
        ys = [theory(name, gain, depth) for gain in along]
        left.plot(along, ys, "--", color=colour, lw=1.2)
        ends.append((ys[-1], name, colour))
        profiles = [run.measured["deltas"] for run in own.of("gain=3") if run.measured]
        if profiles:
            means = [geometric_mean(column) for column in zip(*profiles, strict=True)]
            shares = [x / means[-1] for x in means]
            right.plot(range(1, len(shares) + 1), shares, "o", color=colour, ms=3)
            chi = theory(name, 3, depth)
            right.plot([1, len(shares)], [chi ** (len(shares) - 1), 1], "--", color=colour, lw=1.2)
            words.append((shares[0], name, colour))
    left.set_ylim(max(left.get_ylim()[0], 5e-4), None)
    say_y(left, "factor per layer", "of the error, on its way back")
    left.set_xlabel("gain of the weights", color=GREY)
    beside(left, [(share(left, y), name, colour) for y, name, colour in ends])
    right.set_yscale("log")
    right.invert_xaxis()
    say_y(right, "error, gain 3", "relative to the last hidden layer")
    right.set_xlabel("hidden layer", color=GREY)
    beside(right, [(share(right, y), name, colour) for y, name, colour in words])
    return figure


if __name__ == "__main__":
    lab.main()

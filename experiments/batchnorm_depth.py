"""Does batch norm fix vanishing and exploding gradients?

Batch norm divides each unit by its spread over the batch, so with z ~ N(0, 1) behind it and many units and
samples the error changes per layer by (Yang et al. 2019)

    chi = sqrt(E[f'(z)^2] / Var[f(z)])

The scale of the weights is gone. And chi is never below 1: a function varies at most as much as its slope
(Poincaré's inequality), exactly as much if it is a line. So nothing vanishes, and everything that is bent
explodes: 1.016 for a sigmoid, 1.085 for tanh, and sqrt(pi / (pi - 1)) = 1.211 for ReLU, ten thousandfold in
50 layers. Layer norm divides by E[f(z)^2] in its place, which is larger: 1 for ReLU, but 0.39 for a sigmoid.
Behind the activation batch norm leaves z the scale of the weights, their gain g:

    chi = g sqrt(E[f'(g z)^2] / Var[f(g z)])

which is never below 1 either.
"""

import math

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
    exceeds,
    given,
    near,
    over,
)
from dlexp.lab.draw import panels
from dlexp.lab.verdict import spread_of
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, decades, limits, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["batchnorm_depth", "batchnorm_depth_batch", "batchnorm_depth_training"],
    quick="seeds=1 activation=relu initializer.gain=1 model.depth=5 optimizer.lr=0.1 train.batch_size=32"
    " train.max_steps=1",
)
NORMS = {
    "none": "normalization=none",
    "batch norm": "normalization=batch normalization.position=before",
    "batch norm after": "normalization=batch normalization.position=after",
    "layer norm": "normalization=layer",
}


def theory(activation: str, norm: str) -> float:
    """chi of batch norm and of layer norm, both before the activation."""
    import numpy as np

    z = np.linspace(-8, 8, 20_001)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    f = {"relu": np.maximum(z, 0), "tanh": np.tanh(z), "identity": z}.get(activation, 1 / (1 + np.exp(-z)))
    mean = float(density @ f) if norm == "batch norm" else 0.0
    return math.sqrt(float(density @ np.gradient(f, z) ** 2) / (float(density @ f**2) - mean**2))


def grows(run: Run) -> float:
    """Decades that the error grows on its way from the last hidden layer to the first, first step."""
    deltas = run.profile("delta_rms")
    known = len(deltas) > 2 and deltas[0] > 0 and deltas[-2] > 0
    return math.log10(deltas[0] / deltas[-2]) if known else math.nan


def deep(runs: Runs, words: str) -> Runs:
    """The untrained networks of the greatest depth."""
    own = runs.part("batchnorm_depth").of(words)
    return own.of(f"model.depth={max(own.by('model.depth'), key=int, default='50')}")


@lab.claim(
    "1:191 3:353a",
    "Batch normalization solves the vanishing gradient problem.",
    measures="decades that the error grows on its way to the first of 50 layers, gain 1; batch norm before"
    " and after the activations",
    criterion=">= -2 for each activation; control: <= -2 for a sigmoid without it",
)
def vanishing(runs: Runs) -> Verdict:
    """It does, and theory says that it always does: no activation has chi < 1, in neither place."""
    found = {}
    for activation, own in deep(runs, "initializer.gain=1").by("activation").items():
        found[activation] = all_of({place: at_least(x, -2) for place, x in with_it(own).items()})
    without = deep(runs, f"initializer.gain=1 activation=sigmoid {NORMS['none']}").values(grows)
    return given({"sigmoid without it": at_most(without, -2)}, over("activation", found))


def with_it(runs: Runs) -> dict[str, dict[int, float]]:
    """Place of batch norm -> seed -> decades that the error grows."""
    return {
        "before": runs.of(NORMS["batch norm"]).values(grows),
        "after": runs.of(NORMS["batch norm after"]).values(grows),
    }


@lab.claim(
    "3:353a",
    "Batch normalization solves the exploding gradient problem.",
    measures="decades that the error grows on its way to the first of 50 layers, gain 3, for the"
    " activations with which it explodes without; batch norm before and after them",
    criterion="<= 2 in both places, for each activation",
)
def exploding(runs: Runs) -> Verdict:
    """Only where nothing is bent. It takes out the scale of the weights, the cause of most explosions, and
    brings in one of its own. Behind the activation, where the notes put it, it does not even take out the
    scale: that still decides how far z reaches into the bend.
    """
    found = {}
    for activation, own in deep(runs, "initializer.gain=3").by("activation").items():
        without = own.of(NORMS["none"]).values(grows)
        # What overflows float32 has no number, and has exploded.
        if without and all(math.isnan(x) or x >= 2 for x in without.values()):
            found[activation] = all_of({place: at_most(x, 2) for place, x in with_it(own).items()})
    return over("activation", found)


@lab.claim(
    "3:353a",
    "With batch normalization the gradients of a ReLU network do not explode, whatever its depth.",
    measures="decades that the error grows on its way to the first layer, batch norm before ReLU, batch 256",
    criterion="<= 2, for each depth",
)
def relu_by_depth(runs: Runs) -> Verdict:
    """The factor per layer is small and it is above 1, so some depth is always too deep."""
    own = runs.part("batchnorm_depth_batch").of("train.batch_size=256").by("model.depth")
    return over("depth", {depth: at_most(arm.values(grows), 2) for depth, arm in own.items()})


@lab.claim(
    "3:353a",
    "Theory: behind batch norm the error changes by sqrt(E[f'^2] / Var[f]) per layer.",
    measures="factor of the error per layer, 50 layers, gain 1, batch norm before the activation, batch 256",
    criterion="within 5 % of theory for each activation",
)
def chi(runs: Runs) -> Verdict:
    """In smaller batches, for which theory is not made, it is larger."""
    arms = deep(runs, f"initializer.gain=1 {NORMS['batch norm']}").by("activation").items()
    found = {}
    for activation, own in arms:
        expected = theory(activation, "batch norm")
        found[activation] = near(own.values("delta_factor_first"), expected, within=0.05)
    small = [
        f"{size}: {spread_of(arm.values('delta_factor_first').values())}"
        for size, arm in by_batch(runs).by("train.batch_size").items()
    ]
    return all_of(found).says(
        f"ReLU by size of the batch {', '.join(small)}; each activation, batches of 256"
    )


def by_batch(runs: Runs) -> Runs:
    """ReLU behind batch norm in batches of several sizes, greatest depth."""
    own = runs.part("batchnorm_depth_batch")
    return own.of(f"model.depth={max(own.by('model.depth'), key=int, default='50')}")


@lab.claim(
    "1:191 3:353a",
    "With batch normalization deep networks learn that do not without.",
    measures="test accuracy after 10 epochs, 20 hidden layers, Xavier's weights, best rate of SGD, with"
    " against without",
    criterion="0.1 more, for each activation; control: without it <= 0.5",
)
def learns(runs: Runs) -> Verdict:
    found, controls = {}, {}
    for activation, own in runs.part("batchnorm_depth_training").best().by("activation").items():
        with_norm, without = (own.of(f"normalization={word}").values(accuracy) for word in ("batch", "none"))
        found[activation] = exceeds(with_norm, without, by=0.1)
        controls[f"{activation} without it"] = at_most(without, 0.5)
    return given(controls, over("activation", found))


@lab.picture(
    "The error at each of 50 hidden layers before the first update, relative to the last one; geometric mean"
    " of seeds, weights of gain 1. Dashed: theory, of many units and samples. Batch norm cannot let the error"
    " vanish, and with ReLU makes it explode."
)
def picture(runs: Runs) -> Figure:
    names = {"none": NORMS["none"], "batch norm": NORMS["batch norm"], "layer norm": NORMS["layer norm"]}
    figure, axes = panels(len(names))
    found = {}
    for name, words in names.items():
        arms = deep(runs, f"initializer.gain=1 {words}").by("activation")
        found[name] = {activation: mean_profile(own) for activation, own in arms.items()}
    ((low, high),) = limits([[y for arms in found.values() for ys in arms.values() for y in ys if y > 0]])
    for axis, (name, arms) in zip(axes, found.items(), strict=True):
        decades(axis, low, high)
        words = []
        for colour, (activation, ys) in zip(WORD_COLOURS, arms.items(), strict=False):
            xs = range(1, len(ys) + 1)
            axis.plot(xs, ys, "-", color=colour, lw=1.8)
            if name != "none":
                chi = theory(activation, name)
                axis.plot(xs, [chi ** (len(ys) - x) for x in xs], "--", color=BLACK, lw=1, alpha=0.8)
            words += [(share(axis, ys[0]), activation, colour)] if ys else []
        say_y(axis, name, "error, relative to the last hidden layer")
        axis.set_xlabel("hidden layer", color=GREY)
        axis.invert_xaxis()
        beside(axis, words)
    return figure


def mean_profile(runs: Runs) -> list[float]:
    """delta_rms of the hidden layers relative to the last one, geometric mean over seeds."""
    profiles = [run.profile("delta_rms")[:-1] for run in runs]
    shares = [[x / own[-1] for x in own] for own in profiles if own and own[-1] > 0]
    columns = [[x for x in column if x > 0] for column in zip(*shares, strict=True)]
    return [math.exp(math.fsum(map(math.log, xs)) / len(xs)) if xs else math.nan for xs in columns]


if __name__ == "__main__":
    lab.main()

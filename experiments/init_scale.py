"""Which scale of the initial weights keeps signals alive, forward and backward?

A unit sums n inputs, so weights of standard deviation s multiply the signal by s sqrt(n) in each layer, and
the error as much on its way back. ReLU passes half of the squares:

    linear: s sqrt(n)        ReLU: s sqrt(n / 2), forward and backward

For ReLU and n = 128 that is 1 for He's s = sqrt(2 / n), 0.71 for Xavier's sqrt(1 / n), 0.41 for PyTorch's
default and uniform weights within 1 / sqrt(n), 8 for the standard normal distribution and 0.08 for s =
0.01. Twenty layers take each to its nineteenth power. Units that saturate, tanh and sigmoid, keep the
signal itself within bounds whatever the weights; large ones then put them where the slope is zero.
"""

import math

from matplotlib.figure import Figure

from dlexp.lab import Experiment, Run, Runs, Verdict, accuracy, all_of, at_least, at_most, exceeds, near, over
from dlexp.lab.draw import lines

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["init_scale", "init_scale_training"],
    quick="seeds=1 activation=relu,tanh optimizer.lr=0.03 train.epochs=1 model.depth=3 train.max_steps=2"
    " arm='initializer=normal','initializer=xavier_normal','initializer=kaiming_normal'",
)
STARTS = {
    "uniform": "initializer=uniform",
    "N(0, 0.01)": "initializer=small_normal",
    "N(0, 1)": "initializer=normal initializer.std=1",
    "N(0, 1000)": "initializer=normal initializer.std=1000",
    "Xavier": "initializer=xavier_normal",
    "He": "initializer=kaiming_normal",
    "default": "initializer=pytorch_default",
    "orthogonal": "initializer=orthogonal",
}


def untrained(runs: Runs, start: str, activation: str) -> Runs:
    return runs.part("init_scale").of(f"{STARTS[start]} activation={activation}")


def trained(runs: Runs, start: str) -> dict[str, Runs]:
    """Networks with this start, each arm at its best learning rate: "relu, depth 2" -> runs."""
    own = runs.part("init_scale_training").of(STARTS[start]).best()
    return {f"{arm['activation']}, depth {arm['model.depth']}": Runs(arm.runs) for arm in own.arms()}


def decades(run: Run) -> float:
    """log10 of the share of the error at the last hidden layer that arrives at the first; -inf of nothing."""
    deltas = run.profile("delta_rms")[:-1]
    if len(deltas) < 2 or not deltas[-1] > 0 or math.isnan(deltas[0]):
        return math.nan
    return math.log10(deltas[0] / deltas[-1]) if deltas[0] else -math.inf


def forward(run: Run) -> float:
    """By which factor activation_rms changes per hidden layer."""
    signal = run.profile("activation_rms")[:-1]
    return (
        (signal[-1] / signal[0]) ** (1 / (len(signal) - 1)) if len(signal) > 1 and signal[0] > 0 else math.nan
    )


def off(run: Run) -> float:
    return abs(decades(run))


@lab.claim(
    "3:394",
    "He's weights, of variance 2/n, are for ReLU.",
    measures="factor of delta_rms and of activation_rms per layer, depth 20, against s sqrt(n / 2) for"
    " five starts",
    criterion="within 10 % of it",
)
def factor_is_that_of_theory(runs: Runs) -> Verdict:
    found = {}
    for start in ("He", "Xavier", "uniform", "N(0, 0.01)", "N(0, 1)"):
        own = untrained(runs, start, "relu")
        factor = next((theory(start, run) for run in own), math.nan)
        found[f"{start} back"] = near(own.values("delta_factor_first"), factor, within=0.1)
        found[f"{start} on"] = near(own.values(forward), factor, within=0.1)
    return all_of(found)


def theory(start: str, run: Run) -> float:
    """s sqrt(n / 2), by what the run was asked for."""
    n, b, std = (
        float(run.asked(key) or math.nan) for key in ("model.width", "initializer.b", "initializer.std")
    )
    spread = {"He": math.sqrt(2 / n), "Xavier": math.sqrt(1 / n), "uniform": b / math.sqrt(3)}
    return spread.get(start, std) * math.sqrt(n / 2)


@lab.claim(
    "3:336 3:394",
    "Suitable weights keep the gradients up: He's with ReLU, Xavier's with tanh.",
    measures="decades between the error at the first and at the last hidden layer, depth 20",
    criterion="at most 1",
)
def suitable_weights(runs: Runs) -> Verdict:
    pairs = {"He, relu": ("He", "relu"), "Xavier, tanh": ("Xavier", "tanh")}
    return all_of({name: at_most(untrained(runs, *pair).values(off), 1.0) for name, pair in pairs.items()})


@lab.claim(
    "3:357",
    "Initialization helps against both, vanishing and exploding.",
    measures="decades between the error at the first and at the last hidden layer, suitable weights"
    " against N(0, 0.01)"
    " and N(0, 1)",
    criterion="2 decades less, for ReLU and tanh",
)
def helps_both(runs: Runs) -> Verdict:
    found = {}
    for activation, start in (("relu", "He"), ("tanh", "Xavier")):
        good = untrained(runs, start, activation).values(off)
        for bad in ("N(0, 0.01)", "N(0, 1)"):
            found[f"{activation}, {bad}"] = exceeds(
                untrained(runs, bad, activation).values(off), good, by=2.0
            )
    return all_of(found)


@lab.claim(
    "3:373-374",
    "Large initial weights make gradients explode, small ones make them vanish.",
    measures="decades that the error gains on its way to the first hidden layer, N(0, 1), N(0, 1000) and"
    " N(0, 0.01)",
    criterion=">= 2 for the large ones, <= -2 for the small ones, for each activation",
)
def large_explode(runs: Runs) -> Verdict:
    """Small weights do it always. Large ones only where units do not saturate: behind a sigmoid N(0, 1) does
    neither, and with N(0, 1000) the gradients of tanh and sigmoid vanish, all of them.
    """
    found = {}
    for activation in ("identity", "relu", "tanh", "sigmoid"):
        for start in ("N(0, 1)", "N(0, 1000)"):
            own = untrained(runs, start, activation).values(decades)
            if any(not math.isnan(x) for x in own.values()):  # float32 may overflow on its way forward
                found[f"{activation} {start}"] = at_least(own, 2.0)
        small = untrained(runs, "N(0, 0.01)", activation).values(decades)
        found[f"{activation} N(0, 0.01)"] = at_most(small, -2.0)
    return over("activation and scale", found)


@lab.claim(
    "3:385-386",
    "tanh with weights randn * 1000: units saturate, gradients are near zero, learning is slow.",
    measures="saturated share and delta_rms of the first hidden layer before training, depth 20;"
    " accuracy, depth 2,"
    " best rate",
    criterion="share >= 0.95, delta_rms <= 1e-6, accuracy <= 0.3",
)
def saturated(runs: Runs) -> Verdict:
    own = untrained(runs, "N(0, 1000)", "tanh")
    shallow = trained(runs, "N(0, 1000)").get("tanh, depth 2", Runs([]))

    def first(run: Run, quantity: str) -> float:
        return (run.profile(quantity) or [math.nan])[0]

    return all_of(
        {
            "saturated": at_least(own.values(lambda run: first(run, "saturated_fraction")), 0.95),
            "delta_rms": at_most(own.values(lambda run: first(run, "delta_rms")), 1e-6),
            "accuracy": at_most(shallow.values(accuracy), 0.3),
        }
    )


@lab.claim(
    "0:13a",
    "Never start from large weights.",
    measures="test accuracy at the best rate, Xavier's weights against N(0, 1) and N(0, 1000); diverged"
    " counts as 0.1",
    criterion="Xavier's are better by 0.02 or more, for each activation and depth",
)
def never_large(runs: Runs) -> Verdict:
    good = trained(runs, "Xavier")
    found = {}
    for start in ("N(0, 1)", "N(0, 1000)"):
        for arm, own in trained(runs, start).items():
            found[f"{start}, {arm}"] = exceeds(good[arm].values(accuracy), own.values(accuracy), by=0.02)
    return all_of(found)


@lab.claim(
    "0:15a",
    "Uniform and Xavier are usable starts.",
    measures="test accuracy after 15 epochs at the best rate, uniform within 1 / sqrt(n) and Xavier",
    criterion=">= 0.9 for each activation and depth",
)
def uniform_and_xavier(runs: Runs) -> Verdict:
    """Uniform is a shape and no scale: within 1 / sqrt(n) its variance is a third of Xavier's, and ten
    layers are too many for it. Xavier's own variance is half of what ten layers of ReLU want.
    """
    return usable(runs, "uniform", "Xavier")


@lab.claim(
    "0:15b",
    "The standard normal distribution is a usable start.",
    measures="test accuracy after 15 epochs at the best rate, N(0, 1); one that diverged counts as guessing",
    criterion=">= 0.9 for each activation and depth, as of the others",
)
def standard_normal(runs: Runs) -> Verdict:
    """It has nothing to do with n: at width 128 it is 11 times Xavier's."""
    return usable(runs, "N(0, 1)")


def usable(runs: Runs, *starts: str) -> Verdict:
    arms = {f"{start}, {arm}": own for start in starts for arm, own in trained(runs, start).items()}
    return over("start", {name: at_least(own.values(accuracy), 0.9) for name, own in arms.items()})


@lab.picture(
    "ReLU, depth 20, before the first update: the signal on its way forward and the error on its way back,"
    " relative to the layer where each starts. Dashed: theory, s sqrt(n / 2) per layer. PyTorch's default"
    " draws biases, too, which feed the signal anew on its way forward; the error they do not touch."
)
def picture(runs: Runs) -> Figure:
    shown = ("N(0, 1)", "He", "orthogonal", "Xavier", "default", "N(0, 0.01)")
    arms = {start: untrained(runs, start, "relu") for start in shown}
    factors = {
        "N(0, 1)": 8.0,
        "He": 1.0,
        "Xavier": math.sqrt(1 / 2),
        "N(0, 0.01)": 0.08,
        "default": math.sqrt(1 / 6),
    }

    onward = {start: factor for start, factor in factors.items() if start != "default"}

    def back(run: Run) -> list[float]:
        deltas = run.profile("delta_rms")[:-1]
        return [x / deltas[-1] for x in deltas] if deltas and deltas[-1] else []

    def on(run: Run) -> list[float]:
        signal = run.profile("activation_rms")[:-1]
        return [x / signal[0] for x in reversed(signal)] if signal and signal[0] else []

    return lines(
        {"activation_rms": arms, "delta_rms": arms},
        {"activation_rms": on, "delta_rms": back},
        means="relative to the first layer it passes",
        x="layers still to go",
        theory={"activation_rms": onward, "delta_rms": factors},
    )


if __name__ == "__main__":
    lab.main()

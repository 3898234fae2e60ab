"""Does a plot of weight gradients reveal that the signal vanishes or explodes?

The gradient of a layer's weights is the error that reaches it times what goes into it:

    dL/dW_l = delta_l a_{l-1}^T

If each layer multiplies the signal by a factor c on its way forward and the error by the same c on its way
back, as linear layers, ReLU and abs without biases do, then a_{l-1} ~ c^(l-1), delta_l ~ c^(L-l), and the
product c^(L-1) is the same for every layer: the plot is flat while the signal dies or blows up. A sigmoid's
activation does not shrink (it hovers about 1/2), so there the plot shows what delta shows. The gradient of a
bias is delta alone, without the factor that hides it.
"""

import math

from matplotlib.figure import Figure

from dlexp.lab import Arm, Experiment, Run, Runs, Verdict, all_of, at_least, at_most, over
from dlexp.lab.draw import lines

lab = Experiment(__file__, __doc__, quick="seeds=1 activation=relu,sigmoid model.depth=6")
FLAT = 0.7  # decades: a plot over 20 layers that rises or falls less looks flat
VANISHES = 2.0  # decades
PROPORTIONAL = "activation=identity,relu,abs"  # f(c x) = c f(x) for c > 0


def decades(run: Run, quantity: str) -> float:
    """log10 of a quantity at the first hidden layer over that at the last, before the first update."""
    profile = run.profile(quantity)[:-1]
    return math.log10(profile[0] / profile[-1]) if len(profile) > 1 and min(profile) > 0 else math.nan


def moves(run: Run) -> float:
    """log10 of the first hidden layer's update/weight ratio over the last one's; what float32 does not move
    at all counts as 1e-10; nan if the last one does not move, either.
    """
    ratios = run.profile("update_ratio")[:-1]
    return math.log10(max(ratios[0], 1e-10) / ratios[-1]) if len(ratios) > 1 and ratios[-1] > 0 else math.nan


def steepness(runs: Runs, quantity: str) -> dict[int, float]:
    return runs.values(lambda run: abs(decades(run, quantity)))


def label(arm: Arm) -> str:
    gain = arm.words.get("initializer.gain")
    return f"{arm['activation']} {arm['initializer']}{f' gain {gain}' if gain else ''}"


def plain(runs: Runs) -> Runs:
    """The networks without biases: weight gradients by themselves."""
    return runs.of("model.bias=false")


@lab.claim(
    "1:185",
    "Where little of the error reaches the first layers, their weights and biases are not updated.",
    measures="decades between update/weight ratios of the first and the last hidden layer where"
    " delta_rms falls by"
    " two decades or more on its way back, no biases",
    criterion="2 decades less at the first layer, for each activation",
)
def first_layers_stand_still(runs: Runs) -> Verdict:
    """True of the sigmoid alone. With ReLU and its like the first layers move as far as the last ones,
    relative to their weights, however little error reaches them: their inputs are as much larger. What is
    lost is not the update of one layer against another, but the size of all of them.
    """
    found = {}
    for arm in plain(runs).arms():
        vanishes = all(x <= -VANISHES for x in arm.values(lambda run: decades(run, "delta_rms")).values())
        if vanishes and any(map(math.isfinite, arm.values(moves).values())):
            found[label(arm)] = at_most(arm.values(moves), -VANISHES)
    return over("activation and initializer", found)


@lab.claim(
    "1:185",
    "A plot of weight gradients over depth shows that gradients vanish or explode.",
    measures="decades of grad_norm between the first and the last hidden layer where delta_rms changes"
    " by 2 or more",
    criterion=f"more than {FLAT} decades, for each activation and initializer, no biases",
)
def weight_gradients_show_it(runs: Runs) -> Verdict:
    """TensorBoard's usual plot misses it for linear layers, ReLU and abs: dlexp records delta_rms beside
    it.
    """
    found = {}
    for arm in plain(runs).arms():
        if min(arm.values(lambda run: abs(decades(run, "delta_rms"))).values(), default=0.0) >= VANISHES:
            found[label(arm)] = at_least(arm.values(lambda run: abs(decades(run, "grad_norm"))), FLAT)
    return over("activation and initializer", found)


@lab.claim(
    "1:185",
    "Theory: for linear layers, ReLU and abs without biases weight gradients are flat over depth,"
    " whatever delta does.",
    measures="decades of grad_norm and of delta_rms between the first and the last hidden layer",
    criterion=f"grad_norm <= {FLAT} in every arm; delta_rms >= 2 with Xavier-ReLU, gain 0.5 linear, and"
    " N(0, 1)",
)
def flat_while_it_dies(runs: Runs) -> Verdict:
    steepest = plain(runs).of(PROPORTIONAL).largest(lambda run: abs(decades(run, "grad_norm")))
    dying = {
        "Xavier, ReLU": "initializer=xavier_normal initializer.gain=1 activation=relu",
        "gain 0.5, linear": "initializer=xavier_normal initializer.gain=0.5 activation=identity",
        "N(0, 1), ReLU": "initializer=normal activation=relu",
    }
    found = {
        name: at_least(steepness(plain(runs).of(words), "delta_rms"), 2) for name, words in dying.items()
    }
    return all_of({"steepest grad_norm": at_most(steepest, FLAT), **found})


@lab.claim(
    "1:185",
    "With biases that start at zero the same plot shows it: their gradient is delta itself.",
    measures="decades of grad_norm (weight and bias together) between the first and the last hidden"
    " layer, Xavier, ReLU",
    criterion=f"more than {FLAT} decades",
)
def biases_show_it(runs: Runs) -> Verdict:
    """Nothing else differs: the network computes the same. So whether the usual plot is flat is decided by
    whether it counts the bias.
    """
    words = "initializer=xavier_normal initializer.gain=1 activation=relu model.bias=true"
    return at_least(steepness(runs.of(words), "grad_norm"), FLAT)


@lab.picture(
    "Three signals of the same networks before the first update, without biases, relative to the last hidden"
    " layer; half of Xavier's weights. Dashed: theory. The weight gradients of ReLU and linear layers"
    " are flat."
)
def picture(runs: Runs) -> Figure:
    shown = plain(runs).of("initializer=xavier_normal initializer.gain=0.5").by("activation")
    theory = {"identity": 0.5, "relu": 0.5 * math.sqrt(0.5), "abs": 0.5}

    def relative(run: Run, quantity: str) -> list[float]:
        hidden = run.profile(quantity)[:-1]
        return [x / hidden[-1] for x in hidden] if hidden and hidden[-1] else []

    return lines(
        {"grad_norm": shown, "delta_rms": shown, "activation_rms": shown},
        {
            name: lambda run, name=name: relative(run, name)
            for name in ("grad_norm", "delta_rms", "activation_rms")
        },
        theory={"delta_rms": theory},
        means="relative to the last hidden layer",
    )


if __name__ == "__main__":
    lab.main()

"""Does a plot of weight gradients reveal that the signal vanishes or explodes?

The gradient of a layer's weights is the error that reaches it times what goes into it:

    dL/dW_l = delta_l a_{l-1}^T

If each layer multiplies the signal by a factor c on its way forward and the error by the same c on its way
back, as linear layers, ReLU and abs without biases do, then a_{l-1} ~ c^(l-1), delta_l ~ c^(L-l), and the
product c^(L-1) is the same for every layer: the plot is flat while the signal dies or blows up. A sigmoid's
activation does not shrink (it hovers about 1/2), so there the plot shows what delta shows. The gradient of a
bias is delta alone, without the factor that hides it: it stands out where a_{l-1} is small, and drowns where
that is large.
"""

import math
from collections.abc import Callable

from matplotlib.figure import Figure

from dlexp.lab import Arm, Experiment, Run, Runs, Verdict, at_least, at_most, given, over
from dlexp.lab.draw import lines

lab = Experiment(
    __file__,
    __doc__,
    quick="seeds=1 activation=relu,sigmoid model.depth=6"
    " arm='initializer=kaiming_normal','initializer=xavier_normal initializer.gain=0.5'",
)
FLAT = 0.7  # decades: a plot over 20 layers that rises or falls less looks flat
VANISHES = 2.0  # decades
PROPORTIONAL = "activation=identity,relu,abs"  # f(c x) = c f(x) for c > 0
NAMES = {"identity": "linear", "relu": "ReLU", "abs": "abs", "tanh": "tanh", "sigmoid": "sigmoid"}
STARTS = {
    "kaiming_normal": "He",
    "xavier_normal": "Xavier",
    "pytorch_default": "default",
    "normal": "N(0, 1)",
}


def decades(run: Run, quantity: str) -> float:
    """log10 of a quantity at the first hidden layer over that at the last, before the first update."""
    profile = run.profile(quantity)[:-1]
    return math.log10(profile[0] / profile[-1]) if len(profile) > 1 and min(profile) > 0 else math.nan


def steepness(run: Run, quantity: str) -> float:
    return abs(decades(run, quantity))


def arrives(runs: Runs, low: float, high: float) -> Runs:
    """Those arms where delta_rms changes by so many decades on its way back, at every seed."""

    def fits(arm: Arm) -> bool:
        return all(low <= x <= high for x in arm.values(lambda run: decades(run, "delta_rms")).values())

    return Runs([run for arm in runs.arms() if fits(arm) for run in arm.runs])


def smallest(runs: Runs, what: Callable[[Run], float]) -> dict[int, float]:
    """Seed -> the smallest number of any arm."""
    return {seed: -x for seed, x in runs.largest(lambda run: -what(run)).items()}


def label(arm: Arm) -> str:
    half = "half of " if arm.words.get("initializer.gain") == "0.5" else ""
    start = STARTS.get(arm["initializer"], arm["initializer"])
    return f"{NAMES.get(arm['activation'], arm['activation'])}, {half}{start}"


def plain(runs: Runs) -> Runs:
    """The networks without biases: weight gradients by themselves."""
    return runs.of("model.bias=false")


@lab.claim(
    "1:185",
    "Where little of the error reaches the first layers, their weights are hardly updated.",
    measures="update/weight ratio of the first of 20 hidden layers in the first step of SGD at 0.1, the"
    " largest of any start, with and without biases, where delta_rms falls by two decades or more on its way"
    " back",
    criterion="<= 1e-4 for each activation; control: >= 1e-3 where it changes by one decade at most",
)
def first_layers_stand_still(runs: Runs) -> Verdict:
    """Only in networks of sigmoids are they the only ones, though. With linear layers, ReLU and abs without
    biases the last layers stand as still: little error reaches the ones, little signal the others. (At first
    the layers were compared with each other, which is not what the notes say.)
    """

    def moved(run: Run) -> float:
        return (run.profile("update_ratio") or [math.nan])[0]

    alive = at_least(smallest(arrives(runs, -1.0, 1.0), moved), 1e-3)
    dying = arrives(runs, -math.inf, -VANISHES).by("activation")
    found = {NAMES.get(word, word): at_most(own.largest(moved), 1e-4) for word, own in dying.items()}
    return given({"least ratio where the error arrives": alive}, over("activation", found))


@lab.claim(
    "1:185",
    "A plot of weight gradients over depth shows that gradients vanish or explode.",
    measures="decades of grad_norm between the first and the last of 20 hidden layers, up or down, where"
    " delta_rms changes by two or more; no biases",
    criterion=f"more than {FLAT} decades, for each activation and initializer",
)
def weight_gradients_show_it(runs: Runs) -> Verdict:
    """TensorBoard's usual plot misses it for linear layers, ReLU and abs, and for tanh where weights are
    small, as tanh is linear about 0. dlexp records delta_rms beside it.
    """
    found = {}
    for arm in plain(runs).arms():
        if min(arm.values(lambda run: steepness(run, "delta_rms")).values(), default=0.0) >= VANISHES:
            found[label(arm)] = at_least(arm.values(lambda run: steepness(run, "grad_norm")), FLAT)
    return over("activation and initializer", found)


@lab.claim(
    "1:185",
    "Theory: for linear layers, ReLU and abs without biases weight gradients are flat over depth,"
    " whatever delta does.",
    measures="decades of grad_norm between the first and the last of 20 hidden layers, up or down, the"
    " steepest of any such network; controls: of delta_rms",
    criterion=f"at most {FLAT}; controls: delta_rms >= 2 with Xavier's weights and ReLU, with half of"
    " Xavier's and linear layers, and with N(0, 1) and ReLU",
)
def flat_while_it_dies(runs: Runs) -> Verdict:
    moving = {
        "ReLU from Xavier": "initializer=xavier_normal initializer.gain=1 activation=relu",
        "linear from half of Xavier": "initializer=xavier_normal initializer.gain=0.5 activation=identity",
        "ReLU from N(0, 1)": "initializer=normal activation=relu",
    }
    controls = {
        f"delta_rms of {name}": at_least(
            plain(runs).of(words).values(lambda run: steepness(run, "delta_rms")), 2
        )
        for name, words in moving.items()
    }
    steepest = plain(runs).of(PROPORTIONAL).largest(lambda run: steepness(run, "grad_norm"))
    return given(controls, at_most(steepest, FLAT))


@lab.claim(
    "1:185",
    "Theory: with biases that start at zero a plot of gradients over depth shows what delta does: theirs are"
    " delta itself.",
    measures="decades of grad_norm (weight and bias together) between the first and the last of 20 hidden"
    " layers, up or down, the least of linear layers, ReLU and abs where delta_rms falls or rises by two"
    " decades",
    criterion=f"more than {FLAT} decades, whichever way delta goes",
)
def biases_show_it(runs: Runs) -> Verdict:
    """The network computes the same as without. Where the signal vanishes, whether the usual plot is flat is
    decided by whether it counts the bias; where it explodes the gradient of a bias is nothing beside that of
    the weights. (The first criterion asked for Xavier's weights and ReLU only.)
    """
    own = runs.of(f"model.bias=true {PROPORTIONAL} initializer=kaiming_normal,xavier_normal,normal")
    ways = {
        "vanishes": arrives(own, -math.inf, -VANISHES),
        "explodes": arrives(own, VANISHES, math.inf),
    }
    least = {way: smallest(arms, lambda run: steepness(run, "grad_norm")) for way, arms in ways.items()}
    return over("what delta does", {way: at_least(values, FLAT) for way, values in least.items()})


@lab.picture(
    "Three signals of the same networks before the first update, without biases, half of Xavier's weights,"
    " relative to the last hidden layer. Dashed: theory, for linear layers, ReLU and abs. Their weight"
    " gradients are flat, while the error dies on its way back and the signal on its way on."
)
def picture(runs: Runs) -> Figure:
    half = plain(runs).of("initializer=xavier_normal initializer.gain=0.5").by("activation")
    shown = {NAMES.get(word, word): own for word, own in half.items()}
    factors = {"linear": 0.5, "ReLU": 0.5 * math.sqrt(0.5), "abs": 0.5}
    names = ("grad_norm", "delta_rms", "activation_rms")

    def relative(run: Run, quantity: str) -> list[float]:
        hidden = run.profile(quantity)[:-1]
        return [x / hidden[-1] for x in hidden] if hidden and hidden[-1] else []

    return lines(
        dict.fromkeys(names, shown),
        {name: lambda run, name=name: relative(run, name) for name in names},
        theory={
            "grad_norm": dict.fromkeys(factors, 1.0),
            "delta_rms": factors,
            "activation_rms": {name: 1 / factor for name, factor in factors.items()},
        },
        means="relative to the last hidden layer",
    )


if __name__ == "__main__":
    lab.main()

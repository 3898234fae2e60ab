"""Are the formulas, ranges, derivatives and adjectives of the notes right?

An audit: nothing is trained. Each activation is PyTorch's, in float64, on 2001 points of -20..20, its first
two derivatives by autograd; each formula of the notes is computed beside it by Python's own math. What the
numbers have to be:

    sigmoid    1 / (1 + e^-z)        f' = f (1 - f)         at most 1/4    |f''| at most 0.096
    tanh       2 sigmoid(2z) - 1     f' = 1 - f^2           at most 1      |f''| at most 0.770 = 8 * 0.096
    softsign   z / (1 + |z|)         f' = 1 / (1 + |z|)^2   at most 1      |f''| at most 2, and it jumps

In float32 a sigmoid is exactly 1 from z = 16.6 = ln 2^24 on, where 1 + e^-z is 1, and 0 from -88.7 on, which
is -ln 2^128, where e^-z overflows; tanh is 1 from 9.0 = ln(2^26) / 2 on.
"""

import math
from collections.abc import Callable, Iterable

from matplotlib.figure import Figure

from dlexp.lab import Experiment, Runs, Verdict, all_of, fact, over
from dlexp.plots.style import BLUE, GREY, VERMILLION, inches

lab = Experiment(__file__, __doc__, quick="points=401")
EXACT = 1e-10  # an identity in float64
FUNCTIONS = ("step", "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "softsign", "abs")


@lab.measure(points=2001)
def curves(points: int) -> dict[str, list[float]]:
    """The activations and their first two derivatives on -20..20, in float64; leaky ReLU with slope 0.1."""
    import torch

    from dlexp.build.activations import Step

    own = {"step": Step(), "identity": torch.nn.Identity(), "leaky_relu": torch.nn.LeakyReLU(0.1)}
    half = points // 2
    z = (torch.arange(-half, half + 1, dtype=torch.float64) * 20 / half).requires_grad_()  # 0 and 1 in it
    found = {"z": z.tolist()}
    for name in FUNCTIONS:
        function = own.get(name) or getattr(torch.nn.functional, name, None) or getattr(torch, name)
        f = function(z)
        (slope,) = torch.autograd.grad(f.sum(), z, create_graph=True)
        bend = torch.zeros_like(z)
        if slope.requires_grad:
            bend += torch.autograd.grad(slope.sum(), z, materialize_grads=True)[0]
        found |= {f"{name} f": f.tolist(), f"{name} slope": slope.tolist(), f"{name} bend": bend.tolist()}
    return found


@lab.measure()
def rounded() -> dict[str, float]:
    """From which z on float32 cannot tell a function from the end of its range."""
    import torch

    z = torch.arange(0, 200, 0.01)
    found = {}
    for function, low in ((torch.sigmoid, 0.0), (torch.tanh, -1.0)):
        for side, end, y in (("upper", 1.0, function(z)), ("lower", low, function(-z))):
            there = z[y == end].tolist()
            found[f"{function.__name__} {side}"] = there[0] if there else math.nan
    return found


@lab.measure(x=[10, 20, 50, 88, 89, 100])
def tanh_formula(x: float) -> dict[str, float]:
    """(e^z - e^-z) / (e^z + e^-z) in float32 on -x..x: how far it is from tanh at most; nan counts as 1."""
    import torch

    wide = torch.linspace(-x, x, 4001, dtype=torch.float64)
    up, down = wide.float().exp(), (-wide).float().exp()
    return {"off": float(((up - down) / (up + down) - wide.tanh()).abs().nan_to_num(1.0).max())}


class Curve:
    """What was measured of one activation."""

    def __init__(self, runs: Runs, function: str) -> None:
        measured = runs.part("curves")[0].measured
        self.z: list[float] = measured["z"]
        self.f, self.slope, self.bend = (measured[f"{function} {what}"] for what in ("f", "slope", "bend"))

    def at(self, z: float, which: str = "f") -> float:
        """A number at the point of the grid that is nearest to z."""
        nearest = min(range(len(self.z)), key=lambda i: abs(self.z[i] - z))
        return float(getattr(self, which)[nearest])

    def is_(self, formula: Callable[[float], float]) -> Verdict:
        return agree(self.f, map(formula, self.z))

    def has_slope(self, formula: Callable[[float], float]) -> Verdict:
        """Is its derivative this formula of z?"""
        return agree(self.slope, map(formula, self.z))

    def below(self, ys: list[float]) -> list[float]:
        """Those of some numbers that belong to negative z."""
        return [y for z, y in zip(self.z, ys, strict=True) if z < 0]

    def jumps(self, which: str) -> bool:
        """Does a derivative jump? Then points twice as far apart do not differ twice as much at most."""
        ys = getattr(self, which)
        near, far = (max(abs(b - a) for a, b in zip(ys, ys[n:], strict=False)) for n in (2, 4))
        return far < 1.5 * near


def agree(ones: Iterable[float], others: Iterable[float]) -> Verdict:
    worst = max(abs(a - b) for a, b in zip(ones, others, strict=True))
    return fact(worst <= EXACT, f"at most {worst:.2g} off", worst)


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


@lab.claim(
    "1:53 3:254",
    "sigmoid(z) = 1 / (1 + e^-z), and its derivative is sigmoid (1 - sigmoid).",
    measures="largest difference from PyTorch's sigmoid, and from autograd's derivative, on -20..20",
    criterion="<= 1e-10",
)
def sigmoid_formula(runs: Runs) -> Verdict:
    """Note 1 lost its brackets and turned z into 2: "1 / 1 + e-2" is 1.718, for every z. Judged is what is
    meant.
    """
    own = Curve(runs, "sigmoid")
    return all_of(
        {"formula": own.is_(logistic), "derivative": own.has_slope(lambda z: logistic(z) * (1 - logistic(z)))}
    )


@lab.claim(
    "2:38",
    "The sigmoid is 1 / (1 + e^x).",
    measures="largest difference from PyTorch's sigmoid on -20..20",
    criterion="<= 1e-10",
)
def sigmoid_sign(runs: Runs) -> Verdict:
    """The minus is lost. This is sigmoid(-x), which falls: a neuron that is the less active the more speaks
    for it. `dlexp activation=sigmoid_plus` trains with it all the same: the weights turn round.
    """
    return Curve(runs, "sigmoid").is_(lambda z: logistic(-z))


@lab.claim(
    "1:54-56 2:40",
    "The sigmoid's output lies strictly between 0 and 1.",
    measures="whether an output is exactly 0 or 1: in float64 up to |z| = 20, in float32 up to 200",
    criterion="none is",
)
def sigmoid_range(runs: Runs) -> Verdict:
    """Of real numbers it is true. In float32 the upper end is met early and the lower one late, for numbers
    near 0 are dense and near 1 are not. A log of 1 - p is then -inf: losses are to be given logits.
    """
    return open_range(runs, "sigmoid", 0, 1)


@lab.claim(
    "1:65",
    "Tanh's output lies strictly between -1 and 1.",
    measures="whether an output is exactly -1 or 1: in float64 up to |z| = 18, in float32 up to 200",
    criterion="none is",
)
def tanh_range(runs: Runs) -> Verdict:
    """Of real numbers it is true. In float64 it ends at 19.06 = ln(2^55) / 2, hence only up to 18."""
    return open_range(runs, "tanh", -1, 1)


def open_range(runs: Runs, function: str, low: float, high: float) -> Verdict:
    own, met = Curve(runs, function), runs.part("rounded")[0]
    inside = [y for z, y in zip(own.z, own.f, strict=True) if abs(z) <= (18 if function == "tanh" else 20)]
    upper, lower = (met.number(f"{function} {end}") for end in ("upper", "lower"))
    strictly = low < min(inside) and max(inside) < high
    found = {
        "float64": fact(strictly, f"at least {high - max(inside):.1g} away from {high}"),
        "float32": fact(
            math.isnan(upper) and math.isnan(lower),
            f"{high} from z = {upper:.4g} on, {low} from {-lower:.4g} on",
        ),
    }
    return over("precision", found)


@lab.claim(
    "3:168a 1:170",
    "The sigmoid is an S that squeezes a large range of inputs into 0..1.",
    measures="slope, second derivative and range of the outputs on -20..20",
    criterion="slope > 0, bent upwards left of 0 and downwards right of it, outputs within 0..1",
)
def sigmoid_is_an_s(runs: Runs) -> Verdict:
    own = Curve(runs, "sigmoid")
    bent = all(bend * z <= 0 for z, bend in zip(own.z, own.bend, strict=True))
    holds = min(own.slope) > 0 and bent and min(own.f) >= 0 and max(own.f) <= 1
    ends = f"{min(own.f):.2g}..{max(own.f):.9f}"
    return fact(holds, f"-20..20 becomes {ends}, slope at least {min(own.slope):.2g}")


@lab.claim(
    "0:62",
    "The sigmoid's derivative lies between 0 and 0.25.",
    measures="least and largest derivative on -20..20",
    criterion="> 0, and at most 0.25",
)
def sigmoid_slope(runs: Runs) -> Verdict:
    own = Curve(runs, "sigmoid").slope
    return fact(min(own) > 0 and max(own) <= 0.25, f"{min(own):.2g} to {max(own):.4g}", max(own))


@lab.claim(
    "1:171",
    "A large change of the sigmoid's input makes a small change of its output.",
    measures="change of output per change of input, any two points of -20..20",
    criterion="at most 0.25",
)
def small_change(runs: Runs) -> Verdict:
    own = Curve(runs, "sigmoid")
    pairs = zip(own.z, own.f, own.z[1:], own.f[1:], strict=False)
    steepest = max((b - a) / (y - x) for x, a, y, b in pairs)  # neighbours: no two points are steeper
    wide = (own.at(10) - own.at(-10)) / 20
    return fact(steepest <= 0.25, f"at most {steepest:.3g} for a small change, {wide:.3g} from -10 to 10")


@lab.claim(
    "1:172",
    "Because the sigmoid's range is small, its derivative is small.",
    measures="largest derivative of sigmoid(c z), whose range is that of the sigmoid, for some steepness c",
    criterion="at most 0.25",
)
def hence_small_slope(runs: Runs) -> Verdict:
    """The one does not follow from the other: a range of 1 is crossed as steeply as one likes. In a network c
    is made by the weights. What follows is that a slope cannot be large everywhere: its integral is 1.
    """
    most = max(Curve(runs, "sigmoid").slope)
    steepness = (0.25, 1, 4, 16, 100)
    return over("steepness", {c: fact(c * most <= 0.25, f"{c * most:.3g}") for c in steepness})


@lab.claim(
    "3:169",
    "The sigmoid is smooth, and easy to differentiate.",
    measures="jumps of its first two derivatives; derivative computed from the output alone",
    criterion="none; within 1e-10",
)
def sigmoid_smooth(runs: Runs) -> Verdict:
    own = Curve(runs, "sigmoid")
    smooth = not own.jumps("slope") and not own.jumps("bend")
    from_output = agree(own.slope, [y * (1 - y) for y in own.f])
    jumping = ", ".join(name for name in FUNCTIONS if Curve(runs, name).jumps("slope"))
    found = fact(smooth, f"no jump, unlike the slope of {jumping}" if smooth else "a jump")
    return all_of({"smooth": found, "y (1 - y)": from_output})


@lab.claim(
    "3:175",
    "The sigmoid's derivative approaches zero as the input approaches 0 or 1.",
    measures="derivative at the inputs 0 and 1",
    criterion="below 0.025, a tenth of its largest, at both",
)
def sigmoid_slope_at_0_and_1(runs: Runs) -> Verdict:
    """At input 0 it is largest. Meant is the output: as that approaches 0 or 1, y (1 - y) goes to 0."""
    own = [Curve(runs, "sigmoid").at(z, "slope") for z in (0, 1)]
    return fact(max(own) < 0.025, f"{own[0]:.3g} at 0, {own[1]:.3g} at 1")


@lab.claim(
    "3:196",
    "Tanh's derivative approaches zero as the input approaches 0 or 1.",
    measures="derivative at the inputs 0 and 1",
    criterion="below 0.1, a tenth of its largest, at both",
)
def tanh_slope_at_0_and_1(runs: Runs) -> Verdict:
    """At input 0 it is 1, the largest there is. It goes to 0 as the output approaches -1 or 1."""
    own = [Curve(runs, "tanh").at(z, "slope") for z in (0, 1)]
    return fact(max(own) < 0.1, f"{own[0]:.3g} at 0, {own[1]:.3g} at 1")


@lab.claim(
    "3:255a",
    "Tanh's derivative is 1 - tanh²; it is more symmetrical than the sigmoid.",
    measures="largest difference from autograd's derivative; |f(z) + f(-z)|, which is 0 about the origin",
    criterion="<= 1e-10; 0 for tanh, more for the sigmoid",
)
def tanh_row(runs: Runs) -> Verdict:
    """About the origin: the sigmoid is as symmetrical about (0, 1/2), for tanh(z) = 2 sigmoid(2z) - 1."""
    own, other = Curve(runs, "tanh"), Curve(runs, "sigmoid")
    odd, not_odd = (max(abs(a + b) for a, b in zip(c.f, reversed(c.f), strict=True)) for c in (own, other))
    return all_of(
        {
            "derivative": own.has_slope(lambda z: 1 - math.tanh(z) ** 2),
            "symmetry": fact(odd <= EXACT < not_odd, f"tanh {odd:.2g}, sigmoid {not_odd:.3g}"),
        }
    )


@lab.claim(
    "2:43",
    "tanh(x) = (e^x - e^-x) / (e^x + e^-x).",
    measures="largest difference of the formula in float32 from tanh on -x..x, for some x",
    criterion="<= 1e-6",
)
def tanh_as_written(runs: Runs) -> Verdict:
    """True on paper. In float32 e^x is infinite from 88.7 on, and infinite over infinite is no number."""
    arms = runs.part("tanh_formula").by("x").items()
    found = {x: own[0].number("off") for x, own in arms}
    said = {x: f"{off:.1g} off" if off < 1 else "nan" for x, off in found.items()}
    return over("|x|", {x: fact(off <= 1e-6, said[x]) for x, off in found.items()})


@lab.claim(
    "3:348a",
    "Tanh's derivative is bounded between -1 and 1.",
    measures="least and largest derivative on -20..20",
    criterion="within -1..1",
)
def tanh_slope(runs: Runs) -> Verdict:
    """A bound, and a loose one: no derivative is negative. That gradients cannot explode does not follow."""
    own = Curve(runs, "tanh").slope
    return fact(min(own) >= -1 and max(own) <= 1, f"{min(own):.2g} to {max(own):.4g}", max(own))


@lab.claim(
    "3:186,193",
    "Tanh is smoother than the sigmoid.",
    measures="largest |f''| on -20..20, and jumps of f' and f''",
    criterion="tanh's is less, or the sigmoid jumps and tanh does not",
)
def tanh_smoother(runs: Runs) -> Verdict:
    """Both have derivatives of any order, and they are one curve in two scales. Tanh's is the more bent, by
    2 * 2²: twice as high, and twice as narrow, which counts twice in a second derivative.
    """
    return smoother(runs, "tanh", "sigmoid")


@lab.claim(
    "4:27a",
    "Softsign is a smoother alternative to tanh.",
    measures="largest |f''| on -20..20, and jumps of f' and f''",
    criterion="softsign's is less, or tanh jumps and softsign does not",
)
def softsign_smoother(runs: Runs) -> Verdict:
    """Its second derivative jumps from 2 to -2 at the origin, where tanh's passes through 0."""
    return smoother(runs, "softsign", "tanh")


def smoother(runs: Runs, one: str, other: str) -> Verdict:
    own, theirs = Curve(runs, one), Curve(runs, other)
    bends = [max(map(abs, curve.bend)) for curve in (own, theirs)]
    # at a jump autograd has a number for neither side: the neighbours have
    jumps = [any(curve.jumps(which) for which in ("slope", "bend")) for curve in (own, theirs)]
    said = [f"{bend:.3g}{' and jumps' if jump else ''}" for bend, jump in zip(bends, jumps, strict=True)]
    holds = jumps[1] if jumps[0] != jumps[1] else bends[0] < bends[1]
    return fact(holds, f"|f''| of {one} up to {said[0]}, of {other} up to {said[1]}")


@lab.claim(
    "4:27b",
    "Softsign can help avoid saturation.",
    measures="slopes of softsign and tanh where tanh's is below a tenth of its largest",
    criterion="softsign's is the larger one everywhere there",
)
def softsign_saturates_less(runs: Runs) -> Verdict:
    """It falls like 1/z², tanh's like e^-2|z|. Near the origin it is the other way round: up to |z| = 1.6
    tanh is steeper.
    """
    own, other = Curve(runs, "softsign"), Curve(runs, "tanh")
    there = [(a, b) for a, b in zip(own.slope, other.slope, strict=True) if b < 0.1]
    steeper = max(abs(z) for z, a, b in zip(own.z, own.slope, other.slope, strict=True) if a < b)
    slopes = [(z, own.at(z, "slope"), other.at(z, "slope")) for z in (2, 5, 10)]
    said = ", ".join(f"{a:.2g} against {b:.2g} at {z}" for z, a, b in slopes)
    return fact(all(a > b for a, b in there), f"{said}; tanh is steeper up to |z| = {steeper:.3g}")


@lab.claim(
    "1:77 3:142 4:29",
    "ReLU is max(0, z): zero for negative inputs, positive ones pass unchanged.",
    measures="largest difference of PyTorch's ReLU from max(0, z) on -20..20",
    criterion="<= 1e-10",
)
def relu_formula(runs: Runs) -> Verdict:
    return Curve(runs, "relu").is_(lambda z: max(0.0, z))


@lab.claim(
    "4:31",
    "ReLU lets no gradient pass for negative inputs.",
    measures="largest derivative at a negative input, -20..0",
    criterion="exactly 0",
)
def relu_blocks(runs: Runs) -> Verdict:
    own = Curve(runs, "relu")
    passed = max(map(abs, own.below(own.slope)))
    return fact(passed == 0, f"largest {passed:g}; at 0 itself {own.at(0, 'slope'):g}", passed)


@lab.claim(
    "1:86 1:87-88",
    "Leaky ReLU is max(0.1x, x): negative values are multiplied by a small slope, not made 0.",
    measures="largest difference of PyTorch's leaky ReLU from that; its output nearest to 0 for z < 0",
    criterion="<= 1e-10; none is 0",
)
def leaky_formula(runs: Runs) -> Verdict:
    """max(ax, x) is leaky ReLU for slopes a from 0 to 1 only: with a = 2 it bends the other side."""
    own = Curve(runs, "leaky_relu")
    nearest = max(own.below(own.f))
    formula = own.is_(lambda z: max(0.1 * z, z))
    return all_of({"max(0.1x, x)": formula, "nearest to 0": fact(nearest < 0, f"{nearest:.2g}")})


@lab.claim(
    "3:155b,160,257",
    "Leaky ReLU outputs a small positive value for negative inputs.",
    measures="least and largest output for negative inputs, -20..0, slope 0.1",
    criterion="> 0",
)
def leaky_positive(runs: Runs) -> Verdict:
    """They are negative. What is small and positive is the slope, and that is what keeps a unit alive."""
    own = Curve(runs, "leaky_relu")
    ys = own.below(own.f)
    return fact(min(ys) > 0, f"{min(ys):.2g} to {max(ys):.2g}")


@lab.claim(
    "3:257b",
    "Leaky ReLU's gradient can vanish for very negative inputs.",
    measures="derivative at -20 relative to that just below 0",
    criterion="<= 0.01",
)
def leaky_vanishes(runs: Runs) -> Verdict:
    """It is the same number everywhere below 0, however far and whatever the slope: a small factor, not a
    vanishing one.
    """
    own = Curve(runs, "leaky_relu").slope
    return vanishes(runs, "leaky_relu").says(f"slope {own[0]:g} throughout")


@lab.claim(
    "3:258b",
    "ELU's gradient can vanish for very negative inputs.",
    measures="derivative at -20 relative to that just below 0",
    criterion="<= 0.01",
)
def elu_vanishes(runs: Runs) -> Verdict:
    """It is e^z, so it falls as a sigmoid's does on that side."""
    return vanishes(runs, "elu")


def vanishes(runs: Runs, function: str) -> Verdict:
    own = Curve(runs, function)
    below = own.below(own.slope)
    left = below[0] / below[-1]
    return fact(left <= 0.01, f"{left:.2g} of it is left", left)


@lab.claim(
    "3:258a",
    "ELU(x) = x (1 - e^-x), with the derivative 1 - e^-x for x >= 0 and x e^-x below.",
    measures="largest difference from PyTorch's ELU and its derivative on -5..5",
    criterion="<= 1e-10",
)
def elu_row(runs: Runs) -> Verdict:
    """ELU is x above 0, e^x - 1 below. The formula of the note rises steeply below 0 (737 at -5), and its own
    derivative is the sum of the two expressions, which the note gives to one side each.
    """
    own = Curve(runs, "elu")
    middle = [i for i, z in enumerate(own.z) if abs(z) <= 5]
    zs = [own.z[i] for i in middle]
    found = {
        "formula": agree([own.f[i] for i in middle], map(elu_of_the_note, zs)),
        "derivative": agree([own.slope[i] for i in middle], map(elu_slope_of_the_note, zs)),
    }
    return all_of(found)


def elu_of_the_note(z: float) -> float:
    return z * (1 - math.exp(-z))


def elu_slope_of_the_note(z: float) -> float:
    return 1 - math.exp(-z) if z >= 0 else z * math.exp(-z)


@lab.claim(
    "3:129a 3:223-227",
    "The linear activation returns its input, the absolute one its absolute value.",
    measures="largest difference of PyTorch's identity from z, and of its abs from |z|, on -20..20",
    criterion="<= 1e-10",
)
def identity_and_abs(runs: Runs) -> Verdict:
    return all_of({"linear": Curve(runs, "identity").is_(lambda z: z), "abs": Curve(runs, "abs").is_(abs)})


@lab.claim(
    "1:44",
    "The step function's output is 0 or 1.",
    measures="the values that it takes on -20..20, and its slopes",
    criterion="0 and 1, and no other",
)
def step_values(runs: Runs) -> Verdict:
    """Its derivative takes one value, 0: see step_and_kinks for what that does to training."""
    own = Curve(runs, "step")
    return fact(set(own.f) == {0.0, 1.0}, f"f is {sorted(set(own.f))}, f' {sorted(set(map(abs, own.slope)))}")


@lab.picture(
    "Blue: f, f' and f'' as measured. Red, dashed: as the notes have it: the sigmoid without its minus,"
    " a leaky ReLU that is positive, ELU and its derivative by the table; dots: slopes said to go to 0."
)
def picture(runs: Runs) -> Figure:
    notes: dict[str, list[Callable[[float], float] | None]] = {
        "sigmoid": [lambda z: logistic(-z), None],
        "tanh": [None, None],
        "softsign": [None, None],
        "leaky_relu": [lambda z: abs(0.1 * z) if z < 0 else z, None],
        "elu": [elu_of_the_note, elu_slope_of_the_note],
    }
    tops = {"sigmoid": (1.05, 0.3, 2.2), "leaky_relu": (4.0, 1.1, 2.2), "elu": (4.0, 1.6, 2.2)}
    figure = Figure(figsize=(13, 6.6))
    axes = figure.subplots(3, len(notes), sharex=True, squeeze=False)
    inches(figure, left=0.55, right=0.15, top=0.35, bottom=0.55, across=0.5, columns=5, down=0.4, rows=3)
    for column, (name, written) in enumerate(notes.items()):
        own = Curve(runs, name)
        inside = [i for i, z in enumerate(own.z) if abs(z) <= 5]
        zs = [own.z[i] for i in inside]
        for row, (label, ys) in enumerate({"f": own.f, "f'": own.slope, "f''": own.bend}.items()):
            axis, top = axes[row][column], tops.get(name, (1.1, 1.1, 2.2))[row]
            axis.plot(zs, [ys[i] for i in inside], color=BLUE, lw=1.8)
            if row < 2 and (formula := written[row]):
                axis.plot(zs, [formula(z) for z in zs], "--", color=VERMILLION, lw=1.4)
            if row == 1 and name in ("sigmoid", "tanh"):
                axis.plot([0, 1], [0, 0], "o", color=VERMILLION, ms=5)
            foot = -1.3 if top == 4.0 else -top if row == 2 or min(ys) < -0.5 or top == 1.6 else -0.06 * top
            axis.set_ylim(foot, top)
            if row == 2:
                most = max(map(abs, ys))
                said = f"up to {most:.3g}" if most else "0"
                axis.text(5, 1.6, said, color=BLUE, weight="bold", ha="right")
            axis.set_title(f"{name}: {label}" if row == 0 else label, loc="left", weight="bold")
            axis.set_xlabel("z" if row == 2 else "", color=GREY)
    axes[0][0].text(-4.9, 0.47, "the notes", color=VERMILLION, weight="bold")
    return figure


if __name__ == "__main__":
    lab.main()

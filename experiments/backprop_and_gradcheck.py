"""Is backprop just the chain rule, what does it not do, and how is it verified?

A network is a composition, and the chain rule writes the derivative of a composition as a product of the
derivatives of its parts. Taken from the outputs to the inputs, with delta_l = dL/dz_l,

    delta_l = (W_{l+1}^T delta_{l+1}) * f'(z_l)   and   dL/dW_l = delta_l a_{l-1}^T

That is all that backprop does: it computes. Moving the weights, W - rate * dL/dW, is the optimizer's part.

A difference quotient needs no derivation, so it checks one. From one side its error is about h, from both
sides h^2; rounding adds sqrt(n) u/h over n parameters, u = 1e-16 in float64 and 6e-8 in float32. With the
484 parameters here the sum is least at h = 5e-8 from one side, where 5e-8 is left, and at 1e-5 from both,
where 2e-10 is left. In float32 both sides leave 1e-4 at best: the rule "1e-7 is good" is one for float64.
"""

import math
from statistics import geometric_mean, linear_regression
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import (
    Experiment,
    Run,
    Runs,
    Verdict,
    all_of,
    at_least,
    at_most,
    exceeds,
    fact,
    given,
    identity,
    near,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(__file__, __doc__, quick="seeds=1 directions=100 steps=5 dtype=float64 penalty=0.1")
H = 1e-5  # of the gradient check
PARAMETERS = 484
SIDES = {"1": "one side", "2": "both sides"}
GOOD, BUG = 1e-7, 1e-3  # Ng's rule for its relative error
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}  # half the distance from 1 to the next number


class Net:
    """8 inputs, two hidden layers of 16 units, 4 classes; all parameters in one vector, backward by hand."""

    sizes = (8, 16, 16, 4)

    def __init__(self, seed: int, dtype: str = "float64", activation: str = "tanh") -> None:
        import torch

        random = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Any:
            return torch.randn(*shape, generator=random, dtype=torch.float64).to(getattr(torch, dtype))

        self.x, teacher, self.activation = draw(200, 8), draw(4, 8), getattr(torch, activation)
        self.y = (self.x @ teacher.T).argmax(1)
        self.random, self.penalty, self.drop = random, 0.0, 0.0
        self.shapes = [s for m, n in zip(self.sizes, self.sizes[1:], strict=False) for s in ((n, m), (n,))]
        self.theta = torch.cat([(draw(*s) / s[-1] ** 0.5).flatten() for s in self.shapes])
        if activation == "relu":  # blank inputs and biases of 0: some z are exactly 0, at the kink
            self.x[:10] = 0
            self.theta = torch.cat([p.flatten() * (p.dim() == 2) for p in self.parts(self.theta)])

    def parts(self, theta: Any) -> list[Any]:
        """W1, b1, W2, b2, W3, b3 out of one vector."""
        split = theta.split([math.prod(s) for s in self.shapes])
        return [part.view(s) for part, s in zip(split, self.shapes, strict=True)]

    def forward(self, theta: Any, x: Any, masks: list[Any] | None = None) -> list[Any]:
        """The activation of each layer: inputs first, logits last."""
        p, a = self.parts(theta), [x]
        for i in range(3):
            z = a[-1] @ p[2 * i].T + p[2 * i + 1]
            a.append(self.activation(z) if i < 2 else z)
            if masks and i < 2:
                a[-1] = a[-1] * masks[i]
        return a

    def loss(self, theta: Any, masks: list[Any] | None = None) -> Any:
        import torch

        logits = self.forward(theta, self.x, masks)[-1]
        squares = sum((w**2).sum() for w in self.parts(theta)[::2])
        return torch.nn.functional.cross_entropy(logits, self.y) + self.penalty / 2 * squares

    def masks(self) -> list[Any] | None:
        """Which units are kept, drawn anew at every call; kept ones are scaled up."""
        import torch

        shapes = [(len(self.x), n) for n in self.sizes[1:3]]
        drawn = [torch.rand(shape, generator=self.random) >= self.drop for shape in shapes]
        return [m.to(self.theta.dtype) / (1 - self.drop) for m in drawn] if self.drop else None

    def backward(self, transposed: bool = True) -> Any:
        """dL/dtheta of the tanh network by the chain rule alone, without autograd."""
        import torch

        p, a = self.parts(self.theta), self.forward(self.theta, self.x)
        delta = (a[-1].softmax(1) - torch.nn.functional.one_hot(self.y, 4)) / len(self.x)
        found: list[Any] = []
        for i in (2, 1, 0):
            found = [delta.T @ a[i] + self.penalty * p[2 * i], delta.sum(0), *found]
            if i:
                weight = p[2 * i] if transposed or i == 2 else p[2 * i].T
                delta = delta @ weight * (1 - a[i] ** 2)
        return torch.cat([g.flatten() for g in found])

    def autograd(self, masks: list[Any] | None = None) -> Any:
        import torch

        theta = self.theta.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.loss(theta, masks), theta)
        return found

    def differences(self, h: float, sides: int = 2, masks: Any = None, fresh: bool = False) -> Any:
        """(L(theta + h) - L(theta - h)) / 2h for each parameter; from one side with L(theta) instead."""
        import torch

        if fresh:  # a loss that draws its masks each time it is called
            moved = h * torch.eye(len(self.theta), dtype=self.theta.dtype)
            ends = [[self.loss(self.theta + s * d, self.masks()) for s in (1, -1)] for d in moved]
            return torch.stack([(above - below) / (2 * h) for above, below in ends])
        moved = h * torch.eye(len(self.theta), dtype=self.theta.dtype)
        losses = torch.func.vmap(lambda theta: self.loss(theta, masks), chunk_size=64)
        below = losses(self.theta - moved) if sides == 2 else self.loss(self.theta)
        return (losses(self.theta + moved) - below) / (sides * h)


def apart(one: Any, other: Any) -> float:
    """Ng's relative error."""
    return ((one - other).norm() / (one.norm() + other.norm())).item()


@lab.measure(dtype=["float64", "float32"], seeds=5)
def by_hand(seed: int, dtype: str) -> dict[str, float]:
    """The chain rule by hand, and the product of the layers' Jacobians, against autograd."""
    import torch

    net = Net(seed, dtype)
    x = net.x[:1].requires_grad_()
    p, a = net.parts(net.theta), net.forward(net.theta, x)
    order: list[int] = []
    for i, layer in enumerate(a[1:], 1):
        layer.register_hook(lambda _, i=i: order.append(i))
    (found,) = torch.autograd.grad(a[-1][0, 0], x)
    product = p[4][:1] @ torch.diag(1 - a[2][0] ** 2) @ p[2] @ torch.diag(1 - a[1][0] ** 2) @ p[0]
    return {
        "hand": apart(net.backward(), net.autograd()),
        "product": apart(product, found),
        "backwards": float(order == [3, 2, 1]),
    }


def farthest(ones: list[Any], others: list[Any]) -> float:
    return max((one - other).detach().abs().max().item() for one, other in zip(ones, others, strict=True))


@lab.measure(steps=200, seeds=5)
def backward_only(seed: int, steps: int) -> dict[str, float]:
    """PyTorch's own layers: what backward() changes, and what the optimizer does with what it computed."""
    import torch
    from torch import nn

    data = Net(seed, "float32")
    found: dict[str, float] = {}
    for name, updates in (("backward", False), ("update", True)):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        start = [p.detach().clone() for p in model.parameters()]
        for step in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data.x), data.y)
            loss.backward()
            if step == 0:
                first = loss.item()
            before = [p.detach().clone() for p in model.parameters()]
            if updates:
                optimizer.step()
        now = list(model.parameters())
        rule = [b - 0.5 * p.grad for b, p in zip(before, now, strict=True) if p.grad is not None]
        found |= {
            f"moved by {name}": farthest(now, start),
            f"loss after {name}": loss.item() / first,
            f"off the rule by {name}": farthest(now, rule),
        }
    return found


@lab.measure(directions=10000, seeds=5)
def along_directions(seed: int, directions: int) -> dict[str, float]:
    """How fast the loss changes along unit vectors, in units of the gradient's length."""
    import torch

    net = Net(seed)
    gradient = net.autograd()
    units = torch.randn(directions, len(gradient), generator=net.random, dtype=torch.float64)
    units = torch.cat([gradient[None], units])
    units = units / units.norm(dim=1, keepdim=True)
    losses = torch.func.vmap(net.loss, chunk_size=100)
    rates = (losses(net.theta + H * units) - losses(net.theta - H * units)) / (2 * H * gradient.norm())
    return {
        "along the gradient": float(rates[0]),
        "steepest of the others": float(rates[1:].max()),
        "off": float((rates - units @ gradient / gradient.norm()).abs().max()),
    }


@lab.measure(dtype=["float64", "float32"], sides=[1, 2], seeds=5)
def quotient(seed: int, dtype: str, sides: int) -> dict[str, list[float]]:
    """Relative error of difference quotients against the gradient in float64, for h = 0.1 to 1e-10."""
    hs = [10.0**-i for i in range(1, 11)]
    net, exact = Net(seed, dtype), Net(seed)
    exact.x, exact.theta = net.x.double(), net.theta.double()
    errors = [apart(net.differences(h, sides).double(), exact.autograd()) for h in hs]
    return {"h": hs, "error": errors}


BUGS = ["none", "no_regularizer", "no_transpose", "fresh_dropout", "same_dropout", "kink"]


@lab.measure(bug=BUGS, seeds=5)
def check(seed: int, bug: str) -> dict[str, float]:
    """The gradient check of right and wrong gradients, h = 1e-5, both sides, float64."""
    net = Net(seed, activation="relu" if bug == "kink" else "tanh")
    net.drop = 0.2 if "dropout" in bug else 0.0
    net.penalty = 0.0 if "dropout" in bug or bug == "kink" else 0.01
    masks = net.masks()
    numeric = net.differences(H, masks=masks, fresh=bug == "fresh_dropout")
    if bug == "no_regularizer":
        net.penalty = 0.0
    by_chain = bug in ("none", "no_regularizer", "no_transpose")
    return {"error": apart(net.backward(bug != "no_transpose") if by_chain else net.autograd(masks), numeric)}


@lab.measure(penalty=[0.1, 0.01, 0.001, 0.0001, 0.00001], seeds=5)
def forgotten(seed: int, penalty: float) -> dict[str, float]:
    """The check of a gradient that lacks the regularizer, by the regularizer's strength."""
    net = Net(seed)
    net.penalty = penalty
    numeric = net.differences(H)
    net.penalty = 0.0
    return {"error": apart(net.backward(), numeric)}


@lab.measure(function=["line", "square", "sigmoid", "tanh", "relu"])
def slopes(function: str) -> dict[str, float]:
    """How far the slope of a function of one number varies over -3..3."""
    import torch

    x = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    y = 3 * x + 2 if function == "line" else getattr(torch, function)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return {"varies": float(slope.max() - slope.min())}


def off(runs: Runs, name: str) -> Verdict:
    """Equal up to rounding, in float64 and in float32."""
    own, tolerance = runs.part("by_hand").by("dtype"), {"float64": 1e-12, "float32": 1e-6}
    return all_of({word: identity(arm.values(name), tolerance[word]) for word, arm in own.items()})


def rate_of_fall(low: int, high: int) -> Any:
    """By how many decades the error falls per decade of h, between two of the hs."""

    def slope(run: Run) -> float:
        hs, errors = run.measured["h"][low:high], run.measured["error"][low:high]
        return linear_regression([math.log(h) for h in hs], [math.log(e) for e in errors]).slope

    return slope


@lab.claim(
    "0:25",
    "In gradient descent the new weights are the old ones minus the learning rate times the gradient.",
    measures="largest difference of a weight from that rule after a step of SGD, float32",
    criterion="<= 1e-6",
)
def update_rule(runs: Runs) -> Verdict:
    return identity(runs.part("backward_only").values("off the rule by update"), 1e-6)


@lab.claim(
    "0:48a 0:53",
    "A network learns by adjusting its weights: optimizers update them with what backpropagation gives.",
    measures="loss after 200 steps relative to the start, with the optimizer's update and without",
    criterion="falls to <= 0.1 with it, stays exactly 1 without",
)
def learns_by_adjusting(runs: Runs) -> Verdict:
    own = runs.part("backward_only")
    return all_of(
        {
            "with the update": at_most(own.values("loss after update"), 0.1),
            "without": identity(own.values(lambda run: run.number("loss after backward") - 1), 0.0),
        }
    )


@lab.claim(
    "3:84 4:43",
    "Backpropagation adjusts the weights to reduce the error: it minimizes the error.",
    measures="how far the farthest weight has moved after 200 calls of loss.backward()",
    criterion=">= 1e-9: it has moved at all; control: with an optimizer the loss falls to <= 0.1",
)
def backprop_minimizes(runs: Runs) -> Verdict:
    """backward() computes a derivative and stops there; what reduces the error is the optimizer, here by the
    same calls and a step after each. The notes call the two together backpropagation.
    """
    own = runs.part("backward_only")
    learns = at_most(own.values("loss after update"), 0.1)
    moved = at_least(own.values("moved by backward"), 1e-9)
    return given({"relative loss with an optimizer's steps": learns}, moved)


@lab.claim(
    "1:26 1:179-180",
    "Backpropagation finds derivatives layer by layer, from the last one to the first.",
    measures="order in which autograd hands out the gradients of three layers: 0 if it is 3, 2, 1, else 1",
    criterion="3, 2, 1 for every seed",
)
def from_the_end(runs: Runs) -> Verdict:
    return identity(runs.part("by_hand").of("dtype=float64").values(lambda r: r.number("backwards") - 1), 0)


@lab.claim(
    "1:181",
    "By the chain rule the derivatives of a network's layers are multiplied.",
    measures="relative error of W3 diag(f') W2 diag(f') W1 against autograd's derivative of a logit",
    criterion="<= 1e-12 in float64, <= 1e-6 in float32",
)
def they_multiply(runs: Runs) -> Verdict:
    """They are matrices: it is their order that makes backwards cheap, a vector times a matrix each time."""
    return off(runs, "product")


@lab.claim(
    "1:137 2:35 4:45",
    "The chain rule gives the derivative of a composite function; backprop applies it layer by layer.",
    measures="relative error of ten lines of chain rule by hand against autograd, all parameters",
    criterion="<= 1e-12 in float64, <= 1e-6 in float32",
)
def chain_rule(runs: Runs) -> Verdict:
    return off(runs, "hand")


@lab.claim(
    "1:121-122",
    "A slope is constant: linear. A derivative is a function and not constant: non-linear.",
    measures="largest minus least derivative on -3..3, of a line and of four other functions",
    criterion="0 for the line, more for every other function",
)
def slope_and_derivative(runs: Runs) -> Verdict:
    """Constant everywhere is what matters: ReLU's derivative is constant on either side, and ReLU is not
    linear.
    """
    own = {name: arm[0].number("varies") for name, arm in runs.part("slopes").by("function").items()}
    said = ", ".join(f"{name} {number:.3g}" for name, number in own.items())
    holds = all((varies > 1e-12) == (name != "line") for name, varies in own.items())
    return fact(holds if own else None, said)


@lab.claim(
    "1:124-131 2:46",
    "A derivative, partial ones too, is found as what a difference quotient converges to.",
    measures="log-log slope of the quotient's error along h, float64: 0.1..1e-3, from one side 0.1..1e-5",
    criterion="1 from one side, 2 from both, each within 10 %",
)
def by_differences(runs: Runs) -> Verdict:
    """On paper h goes to 0. In float64 the error turns around near 1e-7 from one side and 1e-5 from both, as
    theory has it: below, rounding is larger than what is to be measured.
    """
    own = runs.part("quotient").of("dtype=float64").by("sides")
    fall = {"1": rate_of_fall(0, 5), "2": rate_of_fall(0, 3)}
    return all_of({f"from {SIDES[n]}": near(arm.values(fall[n]), int(n), 0.1) for n, arm in own.items()})


@lab.claim(
    "2:26",
    "A gradient is a rate of change.",
    measures="rate of change of the loss along random unit vectors minus their inner product with the"
    " gradient, in units of its length",
    criterion="differ by <= 1e-6 of the gradient's length",
)
def rate_of_change(runs: Runs) -> Verdict:
    return identity(runs.part("along_directions").values("off"), 1e-6)


@lab.claim(
    "3:280,296",
    "The gradient points in the direction of the steepest ascent.",
    measures="rate of change along unit vectors, in units of the gradient's length",
    criterion="1 along the gradient within 1e-6, <= 1 along each of 10 000 others",
)
def steepest_ascent(runs: Runs) -> Verdict:
    """None comes near it: in 484 dimensions a random direction has a cosine of 1/sqrt(484) = 0.045 with it,
    give or take. Trying directions is no way to train a network.
    """
    own = runs.part("along_directions")
    along = own.values(lambda run: run.number("along the gradient") - 1)
    others = at_most(own.values("steepest of the others"), 1.0)
    return all_of({"along it": identity(along, 1e-6), "the steepest other": others})


@lab.claim(
    "3:305",
    "The gradient tells the direction of the steepest descent.",
    measures="rate of change of the loss along the gradient, in units of its length",
    criterion="-1 within 1 %",
)
def steepest_descent(runs: Runs) -> Verdict:
    """A slip: it is +1, the steepest ascent (as 3:280 has it). The sentence goes on "so we can move in the
    opposite direction", and only that is downhill.
    """
    return near(runs.part("along_directions").values("along the gradient"), -1, 0.01)


@lab.claim(
    "3:397",
    "Gradient check: an error of 1e-7 is good, of 1e-3 a bug.",
    measures="relative error of the check, h = 1e-5 from both sides, float64, of a right and wrong gradients",
    criterion="< 1e-7 for right code, > 1e-3 for each bug",
)
def check_finds_bugs(runs: Runs) -> Verdict:
    own = runs.part("check").by("bug")
    named = {"no_regularizer": "without the regularizer", "no_transpose": "without a transpose"}
    found = {name: at_least(own[bug].values("error"), BUG) for bug, name in named.items() if bug in own}
    return all_of({"right": at_most(own["none"].values("error"), GOOD), **found} if "none" in own else found)


@lab.claim(
    "3:397",
    "Gradient check: right code gives an error of 1e-7 or less.",
    measures="relative error of the check of a right gradient, from both sides, at the best h there is",
    criterion="< 1e-7 in float64 and in float32",
)
def in_any_precision(runs: Runs) -> Verdict:
    """The rule is one for float64. In float32, in which networks train, rounding alone leaves far more than
    it allows, at the best h there is.
    """
    own = runs.part("quotient").of("sides=2").by("dtype").items()
    least = {dtype: arm.values(lambda run: min(run.measured["error"])) for dtype, arm in own}
    return over("number format", {dtype: at_most(errors, GOOD) for dtype, errors in least.items()})


@lab.claim(
    "3:397",
    "Gradient check: take the difference from both sides.",
    measures="decimal logarithm of the relative error at the best h, from one side against from both",
    criterion=">= 1 decade less from both, in float64 and in float32",
)
def from_both_sides(runs: Runs) -> Verdict:
    """Theory: u^(1/2) against u^(2/3), which are 2.7 decades in float64, and 1.2 in float32."""
    found = {}
    for dtype, own in runs.part("quotient").by("dtype").items():
        one, two = (own.of(f"sides={n}").values(least_decade) for n in (1, 2))
        found[dtype] = exceeds(one, two, by=1.0)
    return all_of(found)


def least_decade(run: Run) -> float:
    return math.log10(min(run.measured["error"]))


@lab.claim(
    "3:397",
    "Gradient check: not with dropout.",
    measures="relative error of the check of a right gradient with dropout 0.2",
    criterion="> 1e-3 both with masks drawn at each evaluation and with the same masks",
)
def not_with_dropout(runs: Runs) -> Verdict:
    """It is the drawing that spoils it: two evaluations differ by their masks far more than by 2h. With the
    masks kept, or the random state put back before each evaluation, the check works.
    """
    own = runs.part("check").of("bug=fresh_dropout,same_dropout").by("bug")
    named = {"fresh_dropout": "drawn at each evaluation", "same_dropout": "kept"}
    return over("masks", {named[bug]: at_least(arm.values("error"), BUG) for bug, arm in own.items()})


@lab.claim(
    "3:397",
    "Gradient check: include the regularizer, or it looks like a bug.",
    measures="relative error of the check of a gradient without the L2 term of the loss, by its strength",
    criterion="> 1e-3 for each strength",
)
def include_the_regularizer(runs: Runs) -> Verdict:
    """The error is about strength * |W| / (2 |gradient|): a weak term that is forgotten hides below 1e-3, in
    the grey zone between the two thresholds. Only above 1e-7 is to be trusted as "look again".
    """
    own = runs.part("forgotten").by("penalty").items()
    return over("strength", {strength: at_least(arm.values("error"), BUG) for strength, arm in own})


@lab.claim(
    "3:397",
    "Gradient check: an error above 1e-3 means a bug.",
    measures="relative error of the check of autograd's gradient, ReLU, biases 0, 10 of 200 inputs blank",
    criterion="< 1e-3, for there is no bug",
)
def kinks_alarm(runs: Runs) -> Verdict:
    """A false alarm: at z = 0 the slope jumps from 0 to 1, the central difference finds 1/2, PyTorch says 0.
    dlexp's own check (debug=gradient_check) tells such places by slopes that differ on the two sides.
    """
    return at_most(runs.part("check").of("bug=kink").values("error"), BUG)


@lab.picture(
    "Relative error of difference quotients against the gradient, mean of seeds: U-shaped. Dashed, theory:"
    " on the right h and h², on the left rounding, sqrt(n) u/h. Dotted: Ng's 1e-7 and 1e-3."
)
def picture(runs: Runs) -> Figure:
    groups = runs.part("quotient").by("dtype")
    figure, axes = panels(max(1, len(groups)))
    for axis, (dtype, own) in zip(axes, groups.items(), strict=False):
        axis.set(xscale="log", yscale="log", ylim=(1e-11, 10))
        for height in (GOOD, BUG):
            axis.axhline(height, color=GREY, ls=":", lw=1)
        words = []
        for colour, (sides, arm) in zip(WORD_COLOURS, own.by("sides").items(), strict=False):
            hs = arm[0].measured["h"]
            columns = zip(*(run.measured["error"] for run in arm), strict=True)
            errors = [geometric_mean(column) for column in columns]
            axis.plot(hs, errors, "o-", color=colour, ms=3, lw=1.4)
            power = int(sides)
            axis.plot(hs, [errors[0] * (h / hs[0]) ** power for h in hs], "--", color=BLACK, lw=1, alpha=0.5)
            words.append((share(axis, errors[0]), "one side" if power == 1 else "both sides", colour))
        axis.plot(hs, [PARAMETERS**0.5 * UNIT[dtype] / h for h in hs], "--", color=BLACK, lw=1, alpha=0.5)
        for h, error, label in ((3e-9, 1e-10, "h"), (2e-5, 2e-11, "h²"), (3e-10, 1e-4, "√n u/h")):
            if dtype == "float64":
                axis.annotate(label, (h, error), (4, 0), textcoords="offset points", color=GREY, fontsize=9)
        beside(axis, [*words, (share(axis, GOOD), "good: 1e-7", GREY), (share(axis, BUG), "bug: 1e-3", GREY)])
        say_y(axis, dtype, "relative error of the quotient")
        axis.set_xlabel("h", color=GREY)
    return figure


if __name__ == "__main__":
    lab.main()

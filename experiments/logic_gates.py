"""Which Boolean functions can one threshold unit compute, and what is the least that computes XOR?

A perceptron says yes where its weighted sum is large enough, that is, on one side of a hyperplane:

    yes where w x > T,   a line of two inputs, a plane of three

A function is within its reach if a hyperplane parts the corners of the cube where it is 1 from those where
it is 0. That is so for 14 of the 16 functions of two inputs (not XOR, not XNOR), for 104 of the 256 of
three, and without a threshold, T = 0, for 6 of the 16. XOR is not: w1 > T and w2 > T, but 0 <= T and
w1 + w2 <= T, add up to a contradiction. Nor does any other rising or falling function of w x help, which
cuts at one place as well; |w x - T| cuts at two.

A unit of McCulloch and Pitts has inputs that excite, that inhibit or that do not count: less than weights.
"""

from itertools import product
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import Experiment, Runs, Verdict, all_of, at_least, at_most, fact, near, over
from dlexp.lab.draw import panels
from dlexp.plots.style import GREEN, GREY, VERMILLION, WORD_COLOURS, beside, ink, say_y

lab = Experiment(__file__, __doc__, quick="seeds=1 data.gate=and,xor inputs=2 steps=20")
NETS = 40  # of each width, trained at once
WIDTHS = (1, 2, 3, 4, 8, 16)  # hidden units
NAMED = {"relu": "ReLU"}
MONOTONE = ("sigmoid", "tanh", "relu")
NAMES = ("0", "nor", "¬a b", "¬a", "a ¬b", "¬b", "xor", "nand", "and", "xnor", "b", "¬a or b", "a",
         "a or ¬b", "or", "1")  # fmt: skip


@lab.measure(inputs=[2, 3], threshold=[1, 0])
def separable(inputs: int, threshold: int) -> dict[str, Any]:
    """Which of all functions a hyperplane computes, by linear programming; and by the perceptron rule."""
    import numpy as np
    from scipy.optimize import linprog

    corners = np.array(list(product([0.0, 1.0], repeat=inputs)))
    tables = np.array(list(product([0, 1], repeat=len(corners))))[:, ::-1]  # function i: the bits of i
    x = np.hstack([corners, np.ones((len(corners), 1))]) if threshold else corners
    found, learned = [], []
    for table in tables:
        sign = np.where(table == 1, 1.0, -1.0)
        most = np.where(table == 1, -1.0, -1.0 if threshold else 0.0)  # yes: w x >= 1, no: w x <= -1 (0)
        free = [(None, None)] * x.shape[1]
        found.append(linprog(np.zeros(x.shape[1]), -sign[:, None] * x, most, bounds=free).status == 0)
        w, mistakes = np.zeros(x.shape[1]), 1
        for _ in range(200):  # w and T up to 5 are enough of three inputs; the rule needs far fewer rounds
            mistakes = 0
            for row, yes in zip(x, table, strict=True):
                if (row @ w > 0) != yes:
                    w, mistakes = w + (row if yes else -row), mistakes + 1
            if not mistakes:
                break
        learned.append(not mistakes)
    return {
        "functions": len(tables),
        "found": sum(found),
        "learned": sum(learned),
        "differ": sum(a != b for a, b in zip(found, learned, strict=True)),
        "which": [int(i) for i in np.flatnonzero(found)],
    }


@lab.measure(inputs=[2, 3, 4])
def mcculloch_pitts(inputs: int) -> dict[str, Any]:
    """What all units of McCulloch and Pitts compute: each input excites, inhibits or does not count."""
    import torch

    from dlexp.build.neuron import McCullochPitts

    corners = torch.tensor(list(product([0.0, 1.0], repeat=inputs)))
    parity = corners.sum(dim=1) % 2
    seen, tables, others = 0, set(), 0
    for roles in product(["excites", "inhibits", "idle"], repeat=inputs):
        for threshold in range(inputs + 2):
            unit = McCullochPitts(
                torch.tensor([float(role == "excites") for role in roles]),
                threshold,
                [i for i, role in enumerate(roles) if role == "inhibits"],
            )
            said = unit(corners).flatten()
            seen, others = seen + 1, others + int(((said != 0) & (said != 1)).sum())
            tables.add(tuple(said.int().tolist()))

    def unit(*signs: int) -> McCullochPitts:
        """One excited by the inputs with 1, inhibited by those with -1."""
        excites, inhibits = [float(s > 0) for s in signs], [i for i, s in enumerate(signs) if s < 0]
        return McCullochPitts(torch.tensor(excites), 1, inhibits)

    pairs = corners[:, :2]
    hidden = torch.cat([unit(1, -1)(pairs), unit(-1, 1)(pairs)], dim=1)  # a and not b; b and not a
    two_layers = unit(1, 1)(hidden).flatten()
    wrong = int((two_layers != pairs.sum(dim=1) % 2).sum())
    own = [sum(bit << i for i, bit in enumerate(table)) for table in tables] if inputs == 2 else []
    return {
        "units": seen,
        "functions": len(tables),
        "parity": int(tuple(parity.int().tolist()) in tables),
        "neither_0_nor_1": others,
        "two_layers_wrong": wrong,
        "which": sorted(own),
    }


@lab.measure(inputs=[2, 3, 10], layers=[1, 2], seeds=5)
def boundary(seed: int, inputs: int, layers: int) -> dict[str, float]:
    """How many dimensions the places have where a network changes its answer, found by bisection."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    net: nn.Module = nn.Linear(inputs, 1)
    if layers == 2:
        net = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 1))
        net[0].weight.data *= 4  # else it is nearly straight  # type: ignore[union-attr,operator]
    net.double()
    with torch.no_grad():
        points = 2 * torch.randn(4000, inputs, dtype=torch.float64)
        net_bias = net[-1].bias if layers == 2 else net.bias  # type: ignore[index]
        net_bias -= net(points).median()  # yes and no equally often  # type: ignore[operator]
        yes, no = (points[(net(points) > 0).flatten() == answer][:1000] for answer in (True, False))
        for _ in range(60):
            middle = (yes + no) / 2
            above = net(middle) > 0
            yes, no = torch.where(above, middle, yes), torch.where(above, no, middle)
        spread = torch.linalg.svdvals(yes - yes.mean(dim=0))
    return {"dimensions": float((spread > 1e-6 * spread[0]).sum()), "flatness": float(spread[-1] / spread[0])}


@lab.measure(seeds=5)
def slopes(seed: int) -> dict[str, float]:
    """A perceptron and a neuron with a sigmoid, of equal weights: their answers and their gradients."""
    import torch

    from dlexp.build.activations import Step

    torch.manual_seed(seed)
    x, w = torch.randn(1000, 10), torch.randn(10, requires_grad=True)
    z = x @ w
    hard, soft = Step(0.0)(z), torch.sigmoid(z)
    (of_soft,) = torch.autograd.grad(soft.sum(), w, retain_graph=True)
    of_hard = torch.autograd.grad(hard.sum(), w)[0] if hard.requires_grad else torch.zeros(10)
    differ = float(((hard > 0.5) != (soft > 0.5)).sum())
    return {"differ": differ, "perceptron": float(of_hard.norm()), "neuron": float(of_soft.norm())}


@lab.measure(activation=["step", *MONOTONE, "abs"], steps=1000, seeds=5)
def xor(seed: int, activation: str, steps: int) -> dict[str, float]:
    """Of networks with one hidden layer the share that learns XOR, for each width.

    Adam at 0.03 on all four corners. Behind steps, which pass no gradient on, the last layer learns by the
    perceptron rule, and the first stays as it was drawn.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    of = torch.tensor(WIDTHS).repeat_interleave(NETS).view(-1, 1, 1)  # the width of each network
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 4, 1)

    def uniform(*shape: int, fan_in: Any = 2) -> torch.Tensor:
        return (2 * torch.rand(len(of), *shape, generator=draw) - 1) / fan_in**0.5

    there = (torch.arange(max(WIDTHS)).view(1, -1, 1) < of).float()  # all are as wide as the widest
    w, b = uniform(2, max(WIDTHS)), uniform(1, max(WIDTHS))
    v, c = uniform(max(WIDTHS), 1, fan_in=of), uniform(1, 1, fan_in=of)
    if activation == "step":
        hidden = torch.cat([(x @ w + b > 0) * there.mT, torch.ones(len(of), 4, 1)], dim=2)
        last = torch.cat([v, c], dim=1)
        for i in range(steps):
            row, wanted = hidden[:, i % 4, :, None], y[:, i % 4, :, None]
            last += row * (wanted - ((row * last).sum(dim=1, keepdim=True) > 0).float())
        z = hidden @ last
    else:
        weights = [p.requires_grad_() for p in (w, b, v, c)]
        optimizer = torch.optim.Adam(weights, lr=0.03)
        for _ in range(steps):
            z = torch.bmm(getattr(torch, activation)(x @ w + b), v * there) + c
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y.expand_as(z), reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    solved = ((z > 0) == (y > 0)).all(dim=1).float().view(len(WIDTHS), NETS).mean(dim=1)
    return {f"solved_{width}": float(share) for width, share in zip(WIDTHS, solved, strict=True)}


@lab.claim(
    "2:27",
    "A perceptron and a neuron differ (the notes leave blank in what).",
    measures="answers of a perceptron and of a neuron with a sigmoid, equal weights, to 1000 inputs, and the"
    " norm of the gradient of their weights",
    criterion="a difference: equal answers, but a gradient of exactly 0 in the perceptron alone",
)
def perceptron_or_neuron(runs: Runs) -> Verdict:
    """Not in what they decide, but in what they can learn from: a step has no slope, so that nothing behind
    it can be learned by gradients. The rule of the perceptron needs to know the answer of each unit.
    """
    own = runs.part("slopes")
    return all_of(
        {
            "answers that differ": at_most(own.values("differ"), 0),
            "gradient of the perceptron": at_most(own.values("perceptron"), 0),
            "of the neuron": at_least(own.values("neuron"), 1e-3),
        }
    )


@lab.claim(
    "2:53-55",
    "The McCulloch-Pitts model: inputs 0/1, output 0/1.",
    measures="outputs of every unit there is of 2, 3 and 4 inputs, at every corner",
    criterion="not one that is neither 0 nor 1",
)
def zero_or_one(runs: Runs) -> Verdict:
    """A definition. Such units compute 11 of the 16 functions of two inputs, fewer than a perceptron, as each
    input that inhibits is a veto by itself: two cannot veto only together (nand), none can be overruled (a or
    not b).
    """
    own = list(runs.part("mcculloch_pitts"))
    units, others = (sum(int(run.number(name)) for run in own) for name in ("units", "neither_0_nor_1"))
    computed = ", ".join(f"{run.number('functions'):.0f} of {run.asked('inputs')} inputs" for run in own)
    return fact(
        others == 0 if own else None,
        f"{units} units, {others} other outputs; functions that they compute: {computed}",
        others,
    )


@lab.claim(
    "2:57",
    "XOR cannot be implemented by the model of McCulloch and Pitts (with > 2 inputs).",
    measures="how many units of it say whether the number of ones is odd; all there are get tried",
    criterion="none, of 2, 3 and 4 inputs",
)
def no_xor(runs: Runs) -> Verdict:
    """Nor with two inputs. Three units do, in two layers: one for a and not b, one for b and not a, one that
    fires for either.
    """
    own = list(runs.part("mcculloch_pitts"))
    can, units = (sum(int(run.number(name)) for run in own) for name in ("parity", "units"))
    wrong = sum(int(run.number("two_layers_wrong")) for run in own)
    wired = f"two layers, wired by hand: {wrong} wrong answers"
    return fact(can == 0 if own else None, f"{can} of {units} units; {wired}", can)


@lab.claim(
    "2:57",
    "XOR cannot be implemented by one unit, whatever its activation.",
    measures="share of 40 networks with one hidden unit that learn XOR",
    criterion="0 for each activation",
)
def one_unit(runs: Runs) -> Verdict:
    """The reason is not that it is one, but that it rises all the way: one |a - b| is XOR. Of the others it
    takes two, and where two have to be found by descent, many networks stick; more units find it more often.
    """
    arms = runs.part("xor").by("activation").items()
    return over(
        "activation", {NAMED.get(word, word): at_most(own.values("solved_1"), 0) for word, own in arms}
    )


@lab.claim(
    "2:58-59",
    "A single perceptron is a linear classifier, which can give output 0/1.",
    measures="functions of 2 and 3 inputs that some hyperplane computes (linear programming), and that the"
    " perceptron rule learns; share of mistakes it ends with on and, or, nand, nor; its accuracy on xor and"
    " xnor",
    criterion="14 of 16, 104 of 256, without a threshold 6 of 16, the rule the same ones; no mistakes;"
    " accuracy of at most 0.75",
)
def linear_classifier(runs: Runs) -> Verdict:
    found: dict[str, Verdict] = {}
    for run in runs.part("separable"):
        inputs, how = run.asked("inputs"), "" if run.asked("threshold") == "1" else " without a threshold"
        asked = {"2": 14, "3": 104, "2 without a threshold": 6}.get(f"{inputs}{how}")
        count, other = int(run.number("found")), int(run.number("differ"))
        if asked:
            said = f"{count} of {run.number('functions'):.0f}, the rule differs on {other}"
            found[f"{inputs} inputs{how}"] = fact(count == asked and other == 0, said, count)
    gates = runs.part("logic_gates")
    wrong = gates.of("data.gate=and,or,nand,nor").largest(lambda run: 1 - run.number("accuracy/test"))
    most = gates.of("data.gate=xor,xnor").largest("accuracy/test")
    return all_of(found | {"most mistakes": at_most(wrong, 0), "XOR and XNOR at best": at_most(most, 0.75)})


@lab.claim(
    "2:60",
    "The boundary of a perceptron is with 2 inputs a line, with 3 a plane, with more a hyperplane.",
    measures="dimensions of 1000 places where a perceptron changes its answer, found by bisection",
    criterion="inputs - 1",
)
def hyperplane(runs: Runs) -> Verdict:
    """The same measurement with a hidden layer of tanh finds all dimensions: its boundary is bent."""
    arms = runs.part("boundary").of("layers=1").by("inputs").items()
    return all_of({f"{n} inputs": near(own.values("dimensions"), int(n) - 1, 0) for n, own in arms})


def halfway(function: int, corner: tuple[float, float]) -> list[tuple[float, float]]:
    """The ends of a line halfway between the mean of the corners with answer 1 and that of the others."""
    sides: list[list[tuple[int, int]]] = [[], []]
    for bit, place in enumerate(product((0, 1), repeat=2)):
        sides[function >> bit & 1].append(place)
    (x0, y0), (x1, y1) = ([sum(x) / len(side) for x in zip(*side, strict=True)] for side in sides)
    middle, along = ((x0 + x1) / 2, (y0 + y1) / 2), (y0 - y1, x1 - x0)
    length = (along[0] ** 2 + along[1] ** 2) ** 0.5
    ends = [
        [m + sign * 0.75 * step / length for m, step in zip(middle, along, strict=True)] for sign in (-1, 1)
    ]
    return [(corner[0] + 0.6 * x, corner[1] + 0.6 * y) for x, y in ends]


@lab.picture(
    "All functions of two inputs, their answers at the corners of the square, a to the right, b up; green"
    " where a line, drawn, parts 1 from 0. Right the share of networks that learn XOR, five times 40 of them."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    corners = list(product((0, 1), repeat=2))
    for run in runs.part("separable").of("inputs=2 threshold=1"):
        for i, name in enumerate(NAMES):
            able = i in (run.measured or {}).get("which", ())
            colour, corner = GREEN if able else VERMILLION, (1.6 * (i % 4), -1.6 * (i // 4))
            for bit, (a, b) in enumerate(corners):
                full = colour if i >> bit & 1 else "white"
                left.plot(
                    corner[0] + 0.6 * a, corner[1] + 0.6 * b, "o", color=full, mec=colour, ms=7, mew=1.5
                )
            if able and 0 < i < 15:
                left.plot(*zip(*halfway(i, corner), strict=True), "-", color=GREY, lw=1.2)
            place = corner[0] + 0.3, corner[1] - 0.42
            left.text(*place, name, ha="center", va="center", fontsize=9, color=ink(colour))
    left.set(xlim=(-0.4, 5.8), ylim=(-5.4, 0.9), xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    say_y(left, "one threshold unit", "filled: the answer is 1")
    ends = []
    for colour, (word, own) in zip(WORD_COLOURS, runs.part("xor").by("activation").items(), strict=False):
        shares = [list(own.values(f"solved_{width}").values()) for width in WIDTHS]
        means = [sum(x) / len(x) for x in shares]
        right.plot(WIDTHS, means, "-", color=colour, lw=1.4)
        for width, each in zip(WIDTHS, shares, strict=True):
            right.plot([width] * len(each), each, "o", color=colour, ms=3, alpha=0.6)
        ends.append((means[2], NAMED.get(word, word), colour))
    right.set_xscale("log", base=2)
    right.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    right.minorticks_off()
    right.set_xlabel("hidden units", color=GREY)
    say_y(right, "XOR", "share of networks that learn it")
    named = [(0.35 + 0.1 * i, word, colour) for i, (_, word, colour) in enumerate(sorted(ends))]
    beside(right, named)
    return figure


if __name__ == "__main__":
    lab.main()

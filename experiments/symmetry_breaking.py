"""What happens to units that start with equal weights, and what really breaks the tie?

Two units of a layer with the same incoming and outgoing weights compute the same, so they get the same
gradient, so they stay the same:

    dL/dW_i = delta_i x^T,   delta_i = f'(z_i) sum_k v_ki delta_k

equal rows W_i and equal columns v_i make equal delta_i. A layer of N equal units is one unit: W has rank 1.
With all weights zero it is worse: where f(0) = 0 (tanh, ReLU) both factors of every gradient but that of the
last bias are zero, nothing moves, and the loss ends at what the shares of the classes give, log 10 = 2.303
for ten equal ones. What breaks the tie is anything that treats units differently: random weights in any one
layer, random biases, dropout. A network without hidden units has no tie: its weights meet different inputs.

All this is exact arithmetic. A computer that adds up one unit in another order than the next one makes them
differ by some 1e-16, and where two units that differ do better than two equal ones, such a difference grows
exponentially: equal units balance on a ridge.
"""

import math
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
    given,
    identity,
    minus,
    near,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import BLUE, GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["symmetry_breaking", "symmetry_breaking_remedies"],
    quick="seeds=1 activation=tanh optimizer.lr=0.5 train.max_steps=5 steps=20"
    " arm='initializer=zeros','initializer=xavier_normal'",
)
EQUAL = "initializer=constant,zeros"


@lab.measure(steps=300, start=["zeros", "random"], seeds=5)
def logistic(seed: int, start: str, steps: int) -> dict[str, float]:
    """Logistic regression: is it an even digit? Full batch, rate 0.5."""
    import torch

    from dlexp.data.digits import read

    every = read()
    order = torch.randperm(len(every.targets), generator=torch.Generator().manual_seed(seed))[:1200]
    x = every.inputs.flatten(1)[order].double() / 16
    y = (every.targets[order] % 2 == 0).double()
    w = torch.zeros(64, dtype=torch.float64)
    if start == "random":
        w += 0.1 * torch.randn(64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    b, first, after_one = torch.zeros((), dtype=torch.float64), torch.sigmoid(x[0] @ w), w
    for step in range(steps):
        error = torch.sigmoid(x @ w + b) - y
        w, b = w - 0.5 * x.T @ error / len(y), b - 0.5 * error.mean()
        after_one = w if step == 0 else after_one
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, y)
    return {"output": float(first), "different": float(after_one.unique().numel()), "loss": float(loss)}


@lab.measure(
    activation=["tanh", "relu", "sigmoid"], kind=["float32", "float64"], width=[32, 33], steps=300, seeds=3
)
def rounding(seed: int, activation: str, kind: str, width: int, steps: int) -> dict[str, Any]:
    """Every weight starts at 0.01."""
    return by_hand(seed, activation, kind, width, steps, first="constant", second="constant")


@lab.measure(
    activation=["tanh", "relu", "sigmoid"], first=["constant", "zeros", "random"], steps=300, seeds=3
)
def one_layer(seed: int, activation: str, first: str, steps: int) -> dict[str, Any]:
    """The weights of the second layer are random, those of the first one are not, or are."""
    return by_hand(seed, activation, "float32", 32, steps, first=first, second="random")


def by_hand(
    seed: int, activation: str, kind: str, width: int, steps: int, *, first: str, second: str
) -> dict[str, Any]:
    """A net of one hidden layer in a format of one's own: digits, full batch, rate 0.5."""
    import torch

    from dlexp.data.digits import read
    from dlexp.record.look import differences, effective_rank

    f, dtype = getattr(torch, activation), getattr(torch, kind)
    generator, every = torch.Generator().manual_seed(seed), read()
    pixels = every.inputs.flatten(1).double()
    order = torch.randperm(len(pixels), generator=generator)
    x, y = ((pixels - pixels.mean()) / pixels.std()).to(dtype)[order], every.targets[order]

    def start(how: str, outputs: int, inputs: int) -> torch.Tensor:
        drawn = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / math.sqrt(inputs)
        drawn = {"zeros": 0 * drawn, "constant": 0 * drawn + 0.01, "random": drawn}[how]
        return drawn.to(dtype).requires_grad_()

    w1, w2 = start(first, width, 64), start(second, 10, width)
    b1, b2 = (torch.zeros(n, dtype=dtype, requires_grad=True) for n in (width, 10))

    def loss_of(part: slice) -> tuple[torch.Tensor, float]:
        outputs = f(x[part] @ w1.T + b1) @ w2.T + b2
        right = (outputs.argmax(dim=1) == y[part]).double().mean()
        return torch.nn.functional.cross_entropy(outputs, y[part]), float(right)

    found = []
    for step in range(steps + 1):
        if step % 10 == 0:
            found.append(float(differences(w1.detach().double())[0]))
        grads = torch.autograd.grad(loss_of(slice(1200))[0], (w1, b1, w2, b2))
        with torch.no_grad():
            for weight, grad in zip((w1, b1, w2, b2), grads, strict=True):
                weight -= 0.5 * grad
    rank = effective_rank(w1.detach().double())
    return {
        "difference": found[-1],
        "differences": found,
        "effective_rank": math.nan if isinstance(rank, str) else rank,  # zeros have none
        "accuracy": loss_of(slice(1200, None))[1],
    }


def hidden(run: Run, quantity: str) -> float:
    """Of the hidden layer at the end of training."""
    found = run.profile(quantity, "last")
    return found[0] if found else math.nan


def difference(run: Run) -> float:
    return hidden(run, "row_difference")


def moved(run: Run) -> float:
    return hidden(run, "weight_norm")


def main_runs(runs: Runs, words: str) -> Runs:
    return runs.part("symmetry_breaking").of(words)


def each(runs: Runs) -> dict[str, Runs]:
    """Arm by arm, each at one learning rate, named by activation and, if there is one, constant."""
    named = ("activation", "initializer.val")
    return {", ".join(arm.words[k] for k in named if k in arm.words): Runs(arm.runs) for arm in runs.arms()}


def remedy(runs: Runs, words: str) -> Runs:
    """Equal weights and one thing more."""
    plain = {"train.batch_size": "all", "optimizer": "sgd", "initializer.bias": "0.0", "dropout": "none"}
    plain |= dict(word.split("=") for word in words.split())
    own = runs.part("symmetry_breaking_remedies")
    return own.of(" ".join(f"{key}={value}" for key, value in plain.items()))


def untied(runs: dict[str, Runs]) -> dict[str, Verdict]:
    return {name: at_least(own.values(difference), 0.1) for name, own in runs.items()}


@lab.claim(
    "0:6 0:7 3:379",
    "Units that start equal get equal gradients and stay equal for all of training.",
    measures="largest difference between two rows of W1 after 300 full-batch steps from zeros, 0.01 and 0.5;"
    " tanh, ReLU and sigmoid, four rates",
    criterion="exactly 0, in float32, for each start",
)
def stay_equal(runs: Runs) -> Verdict:
    """Exactly, with 32 units in float32. Other widths and formats are a claim of their own."""
    arms = main_runs(runs, EQUAL)
    return identity(arms.largest(difference), 0.0).says(f"any of {len(arms.arms())} arms")


@lab.claim(
    "0:7 3:380",
    "Units that start equal stay equal for all of training, whatever the computer.",
    measures="largest difference between two rows of W1, relative to the largest row, after 300 full-batch"
    " steps from 0.01; the largest of tanh, ReLU and sigmoid",
    criterion="<= 0.1, for each number format and width; 0.1 is what counts as broken below",
)
def whatever_the_computer(runs: Runs) -> Verdict:
    """Where equal units are added up in different orders, they differ by a rounding, and by a share more in
    each step, until there are two kinds of units and more. The sigmoid's differences grow as well, slower:
    300 steps are not enough. Which widths and formats are spared depends on processor and library. It is no
    remedy: accuracy stays behind that of random weights.
    """
    found = {}
    for kind, own in runs.part("rounding").by("kind").items():
        for width, arms in own.by("width").items():
            found[f"{kind}, {width} units"] = at_most(arms.largest("difference"), 0.1)
    return over("number format and width", found)


@lab.claim(
    "3:380",
    "The tie between units that start with equal weights cannot be broken.",
    measures="largest difference between two rows of W1, relative to the largest row, after 300 steps with"
    " one thing added; tanh",
    criterion="0, whatever is added",
)
def cannot_be_broken(runs: Runs) -> Verdict:
    """Neither the order of samples nor another optimizer treats units differently; dropout and random biases
    do. So weights may start equal, where something else does not.
    """
    arms = {
        "mini-batches": remedy(runs, "initializer=constant train.batch_size=64"),
        "Adam": remedy(runs, "initializer=constant optimizer=adam"),
        "random biases": remedy(runs, "initializer=constant initializer.bias=random"),
        "zeros and random biases": remedy(runs, "initializer=zeros initializer.bias=random"),
        "dropout": remedy(runs, "initializer=constant dropout=standard"),
        "zeros and dropout": remedy(runs, "initializer=zeros dropout=standard"),
    }
    return over("what is added", {name: at_most(own.values(difference), 0.0) for name, own in arms.items()})


@lab.claim(
    "0:11",
    "Different random weights break the tie between units.",
    measures="largest difference between two rows of W1, relative to the largest row, after 300 steps from"
    " Xavier's weights",
    criterion=">= 0.1 for each activation",
)
def random_breaks_it(runs: Runs) -> Verdict:
    return over(
        "activation", untied(main_runs(runs, "initializer=xavier_normal optimizer.lr=0.5").by("activation"))
    )


@lab.claim(
    "0:11 0:13b",
    "Theory: random weights in the second layer alone break the tie of equal ones in the first.",
    measures="largest difference between two rows of W1, relative to the largest row, after 300 steps from"
    " 0.01 with random W2; test accuracy less than from random W1 and W2",
    criterion="difference >= 0.1, accuracy at most 0.02 less, for each activation",
)
def one_layer_is_enough(runs: Runs) -> Verdict:
    """Units with equal inputs are told apart by what comes after them."""
    return second_alone(runs, "constant")


@lab.claim(
    "0:11 0:13b",
    "Theory: random weights in the second layer alone break the tie of zeros in the first.",
    measures="largest difference between two rows of W1, relative to the largest row, after 300 steps from"
    " zero with random W2; test accuracy less than from random W1 and W2",
    criterion="difference >= 0.1, accuracy at most 0.02 less, for each activation",
)
def also_of_zeros(runs: Runs) -> Verdict:
    """Only ReLU at zero passes nothing back, its slope at 0 being 0 in PyTorch, so there nothing moves."""
    return second_alone(runs, "zeros")


def second_alone(runs: Runs, first: str) -> Verdict:
    found = {}
    for name, own in runs.part("one_layer").by("activation").items():
        arms = own.by("first")
        alone, both = (arms.get(start, Runs([])) for start in (first, "random"))
        parts = {
            "difference": at_least(alone.values("difference"), 0.1),
            "accuracy less": at_most(minus(both.values("accuracy"), alone.values("accuracy")), 0.02),
        }
        found[name] = all_of(parts)
    return over("activation", found)


@lab.claim(
    "0:13b",
    "Never start all units with the same value.",
    measures="test accuracy after 300 steps, random weights (Xavier) against a constant, each at its best"
    " rate",
    criterion="random weights are better by 0.2, for each activation and constant",
)
def never_the_same(runs: Runs) -> Verdict:
    """Thirty-two equal units are one: the effective rank of W1 stays 1."""
    return over("activation and constant", against_random(runs, "initializer=constant"))


@lab.claim(
    "0:13c",
    "Never start at zero.",
    measures="test accuracy after 300 steps, random weights (Xavier) against zeros, each at its best rate",
    criterion="random weights are better by 0.2, for each activation",
)
def never_at_zero(runs: Runs) -> Verdict:
    """Zeros in every layer, that is. Random biases alone make up for zero weights, and a network
    without hidden units may start there.
    """
    return over("activation", against_random(runs, "initializer=zeros"))


def against_random(runs: Runs, words: str) -> dict[str, Verdict]:
    found = {}
    best = runs.part("symmetry_breaking").best()
    for name, own in each(best.of(words)).items():
        random = best.of(f"initializer=xavier_normal activation={own[0].words['activation']}")
        found[name] = exceeds(random.values("accuracy/test"), own.values("accuracy/test"), by=0.2)
    return found


@lab.claim(
    "3:379",
    "Theory: with all weights zero and f(0) = 0 nothing but the last bias ever moves.",
    measures="norm of W1 and b1 together after 300 steps; loss on train against log 10",
    criterion="norm exactly 0, loss within 1 % of 2.303, for tanh and ReLU",
)
def zeros_stand_still(runs: Runs) -> Verdict:
    found = {}
    for name, own in (
        main_runs(runs, "initializer=zeros optimizer.lr=0.5 activation=tanh,relu").by("activation").items()
    ):
        found[f"{name}, norm"] = identity(own.values(moved), 0.0)
        found[f"{name}, loss"] = near(own.values("loss/train"), math.log(10), within=0.01)
    return all_of(found)


@lab.claim(
    "3:382-383a",
    "Logistic regression does not need random weights: started at zero it learns as well.",
    measures="loss after 300 steps from zeros, difference from that from random weights, as a share of it",
    criterion="<= 0.01; control: both below log 2, that of guessing",
)
def logistic_may_start_at_zero(runs: Runs) -> Verdict:
    own = runs.part("logistic")
    zero, random = (own.of(f"start={start}").values("loss") for start in ("zeros", "random"))
    apart = {seed: abs(x) / random.get(seed, math.nan) for seed, x in minus(zero, random).items()}
    return given({"loss": at_most(own.largest("loss"), math.log(2))}, at_most(apart, 0.01))


@lab.claim(
    "3:383b",
    "Started at zero, logistic regression outputs zero for the first example.",
    measures="output before the first update, distance from 0",
    criterion="0 to rounding (1e-12)",
)
def outputs_zero(runs: Runs) -> Verdict:
    """The weighted sum is zero; the output is sigmoid(0) = 1/2."""
    return identity(runs.part("logistic").of("start=zeros").values("output"), 1e-12)


@lab.claim(
    "3:383c",
    "The derivative of logistic regression depends on x, so weights that start at zero differ after a step.",
    measures="how many different values the 64 weights have after that step",
    criterion=">= 2; theory: one for each pixel that is not constant, and one for all that are",
)
def weights_differ(runs: Runs) -> Verdict:
    return at_least(runs.part("logistic").of("start=zeros").values("different"), 2)


@lab.picture(
    "Left and middle: effective rank of the hidden layer's rows after training, and test accuracy, a dot for"
    " each seed (tanh). One unit's worth, rank 1 (dotted), is what equal weights have, for ever in exact"
    " arithmetic; a weight matrix of zeros has none. Right: equal weights of 0.01 in each layer, and what"
    " rounding makes of them; 32 units in float32 stay exactly equal."
)
def picture(runs: Runs) -> Figure:
    second = runs.part("one_layer").of("activation=tanh first=constant")
    wide = runs.part("rounding").of("activation=tanh kind=float64 width=32")
    arms = {
        "zeros": main_runs(runs, "initializer=zeros activation=tanh optimizer.lr=0.5"),
        "zeros + random biases": remedy(runs, "initializer=zeros initializer.bias=random"),
        "constant 0.05": remedy(runs, "initializer=constant"),
        "+ mini-batches": remedy(runs, "initializer=constant train.batch_size=64"),
        "+ Adam": remedy(runs, "initializer=constant optimizer=adam"),
        "+ random biases": remedy(runs, "initializer=constant initializer.bias=random"),
        "+ dropout": remedy(runs, "initializer=constant dropout=standard"),
        "constant 0.01, float64": wide,
        "W1 0.01, random W2": second,
        "random (Xavier)": main_runs(runs, "initializer=xavier_normal activation=tanh optimizer.lr=0.5"),
    }
    figure, axes = panels(3, left=2.0, right=1.5, across=0.75)
    shown = (("effective rank of W1", rank_of, 1.0), ("test accuracy", tested, 0.1))
    for axis, (title, what, least) in zip(axes, shown, strict=False):
        for height, own in enumerate(reversed(arms.values())):
            values = [0.0 if math.isnan(x) else x for x in own.values(what).values()]
            axis.plot(values, [height] * len(values), "o", color=BLUE, ms=6, alpha=0.6)
        axis.axvline(least, color=GREY, ls=":", lw=1)
        axis.set_ylim(-0.5, len(arms) - 0.5)
        axis.set_yticks(range(len(arms)), list(reversed(arms)) if axis is axes[0] else [""] * len(arms))
        say_y(axis, title, "after 300 steps")
    axis, ends = axes[2], []
    axis.set_yscale("log")
    for colour, arm in zip(WORD_COLOURS, runs.part("rounding").of("activation=tanh").arms(), strict=False):
        for run in arm.runs:
            ys = [y if y > 0 else math.nan for y in (run.measured or {}).get("differences", [])]
            axis.plot(range(0, 10 * len(ys), 10), ys, "-", color=colour, lw=1.2, alpha=0.8)
        if not math.isnan(ys[-1]):
            ends.append((ys[-1], f"{arm['kind']}, {arm['width']}", colour))
    axis.set_ylim(1e-18, 10)
    say_y(axis, "difference between units", "largest, relative to the largest row of W1")
    axis.set_xlabel("step", color=GREY)
    beside(axis, [(share(axis, y), label, colour) for y, label, colour in ends])
    return figure


def rank_of(run: Run) -> float:
    return run.number("effective_rank") if run.measured else hidden(run, "effective_rank")


def tested(run: Run) -> float:
    return run.number("accuracy" if run.measured else "accuracy/test")


if __name__ == "__main__":
    lab.main()

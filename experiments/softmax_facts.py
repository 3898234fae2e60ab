"""What does softmax do, and what does it not do?

It makes of K numbers K probabilities, and what its gradients are depends on the loss behind it:

    p_i = e^z_i / sum_j e^z_j        dp_i/dz_j = p_i (1[i = j] - p_j)
    cross-entropy:  dL/dz = p - y    squared error:  dL/dz = J (p - y) 2/K, with that J in front

J is near 0 wherever p is near a corner, right or wrong: at a gap of z = -10 for the right one of two classes
the first gradient is 0.99995 and the second 9.1e-5. With two classes p is a sigmoid of z_1 - z_2, and where
two logits are equal there is a straight line if they are linear: the non-linearity of softmax bends nothing.
"""

import math
from collections.abc import Callable
from statistics import fmean

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
    minus,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import BLACK, BLUE, GREY, VERMILLION, beside, ink, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["softmax_facts", "softmax_facts_calibration", "softmax_facts_ranking"],
    quick="seeds=1 optimizer.lr=0.5 train.max_steps=9 data.samples=200 samples=50",
)
CALIBRATED = 0.05
CONFIDENT = -10.0  # a wrong answer: the logit of the right class is that far below the other


@lab.measure(scale=[1, 10, 100], samples=1000, seeds=5)
def outputs(seed: int, scale: float, samples: int) -> dict[str, float]:
    """Softmax and sigmoids of random logits, ten classes, in float32."""
    import torch

    z = scale * torch.randn(samples, 10, generator=torch.Generator().manual_seed(seed))
    p, s = z.softmax(1), z.sigmoid().sum(1)
    moved = (z.double() + 1000).softmax(1) - z.double().softmax(1)
    return {
        "softmax off 1": float((p.sum(1) - 1).abs().max()),
        "least": float(p.min()),
        "sigmoids off 1": float((s - 1).abs().mean()),
        "moved by 1000": float(moved.abs().max()),
    }


@lab.measure()
def example() -> dict[str, float]:
    """The worked example of note 1."""
    import torch

    z = torch.tensor([0.4, 0.8], dtype=torch.float64)
    return {
        "softmax": float(z.softmax(0)[0]),
        "share": float((z / z.sum())[0]),
        "of logs": float(z.log().softmax(0)[0]),
    }


@lab.measure(samples=1000, seeds=5)
def derivatives(seed: int, samples: int) -> dict[str, float]:
    """Derivatives at random logits, ten classes, float64: autograd, formulas, and central differences."""
    import torch
    from torch.nn import functional

    random, h = torch.Generator().manual_seed(seed), 1e-6
    z = torch.randn(samples, 10, generator=random, dtype=torch.float64)
    y = torch.randint(10, (samples,), generator=random)
    p, moves = z.softmax(1), h * torch.eye(10, dtype=torch.float64)

    def quotients(f: object) -> torch.Tensor:
        """(samples, ..., 10): of f along each logit."""
        return torch.stack([(f(z + d) - f(z - d)) / (2 * h) for d in moves], -1)  # type: ignore[operator]

    def gradient(f: object) -> torch.Tensor:
        at = z.clone().requires_grad_()
        return torch.autograd.grad(f(at).sum(), at)[0]  # type: ignore[operator]

    def hardmax(x: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(x.argmax(1), 10).double()

    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: x.softmax(0)))(z)
    diagonal = torch.diag_embed(p * (1 - p))
    off = ~torch.eye(10, dtype=torch.bool)
    cross = gradient(lambda x: functional.cross_entropy(x, y, reduction="sum"))
    of_max = gradient(lambda x: x.max(1).values)
    return {
        "differences": float((jacobian - quotients(lambda x: x.softmax(1))).abs().max()),
        "on the diagonal": float((jacobian - diagonal)[:, ~off].abs().max()),
        "off the diagonal": float(jacobian[:, off].abs().mean() / jacobian[:, ~off].abs().mean()),
        "whole": float((jacobian - torch.diag_embed(p) + p[:, :, None] * p[:, None]).abs().max()),
        "p - y": float((cross - p + functional.one_hot(y, 10)).abs().max()),
        "pair": float((z[:, :2].softmax(1)[:, 0] - (z[:, 0] - z[:, 1]).sigmoid()).abs().max()),
        "hardmax": float(((1e6 * z).softmax(1) - hardmax(z)).abs().max()),
        "max differs": float((of_max - quotients(lambda x: x.max(1).values)).abs().max()),
        "max gradient": float(of_max.norm(dim=1).mean()),
        "hardmax gradient": float(quotients(hardmax).norm(dim=(1, 2)).mean()),
        "softmax gradient": float(jacobian.norm(dim=(1, 2)).mean()),
        "logsumexp": float((gradient(lambda x: x.logsumexp(1)) - p).abs().max()),
    }


@lab.measure(seeds=5)
def saturated(seed: int) -> dict[str, float | list[float]]:
    """|dL/dz| of two logits along their gap, the right class first; J in a hidden layer of 64 units."""
    import torch
    from torch import nn

    from dlexp.build.losses import SoftmaxMSE

    gaps = torch.linspace(-15, 15, 61, dtype=torch.float64)
    found: dict[str, float | list[float]] = {"gap": gaps.tolist()}
    for name, loss in (("cross-entropy", nn.CrossEntropyLoss()), ("squared error", SoftmaxMSE())):
        sizes = []
        for gap in gaps.tolist():
            z = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(loss(z, torch.tensor([0])), z)
            sizes.append(float(gradient[0, 0].abs()))
        found |= {f"{name} along": sizes, name: sizes[gaps.tolist().index(CONFIDENT)]}
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(200, 64, generator=random, dtype=torch.float64, requires_grad=True)
    error = torch.randn(200, 64, generator=random, dtype=torch.float64)
    (passed,) = torch.autograd.grad(z.softmax(1), z, error)
    return {**found, "hidden layer": float(passed.norm() / error.norm())}


@lab.measure(samples=1000, seeds=5)
def random_order(seed: int, samples: int) -> dict[str, float]:
    """NDCG of lists of ten items in random order, two of each grade."""
    import torch

    from dlexp.train.metrics import ndcg

    scores = torch.rand(samples, 10, generator=torch.Generator().manual_seed(seed))
    return {"ndcg": float(ndcg(scores, (torch.arange(10) // 2).float().expand(samples, 10)))}


def deriv(runs: Runs, name: str) -> dict[int, float]:
    return runs.part("derivatives").values(name)


def trained_on(run: Run) -> int:
    """How many samples."""
    held_out = sum(float(run.asked(f"data.{split}") or 0) for split in ("validation", "test"))
    return round(float(run.asked("data.samples") or 0) * (1 - held_out))


def moons(runs: Runs, model: str) -> dict[int, float]:
    """Test accuracy at the best learning rate."""
    return runs.part("softmax_facts").best().of(f"model={model}").values("accuracy/test")


@lab.claim(
    "1:101,103 3:207 4:23",
    "Softmax normalizes: its outputs are a distribution over the classes and sum to one.",
    measures="|sum - 1| of ten outputs, logits of deviation 1, 10, 100, float32; the least output; by how"
    " much an output changes where 1000 is added to each logit, float64",
    criterion="<= 1e-6; >= 0; <= 1e-12",
)
def sums_to_one(runs: Runs) -> Verdict:
    """Only differences of logits count: 1000 more on each of them changes no output."""
    own = runs.part("outputs").arms()

    def worst(name: str, most: Callable[..., float] = max) -> dict[int, float]:
        """Of all scales."""
        seeds = dict.fromkeys(seed for arm in own for seed in arm.values(name))
        return {seed: most(arm.values(name)[seed] for arm in own) for seed in seeds}

    return all_of(
        {
            "sum": identity(worst("softmax off 1"), 1e-6),
            "least": at_least(worst("least", min), 0.0),
            "1000 more on each": identity(worst("moved by 1000"), 1e-12),
        }
    )


@lab.claim(
    "1:102",
    "The outputs of sigmoids for several classes do not add up to one.",
    measures="mean |sum - 1| of the sigmoids of ten random logits, by their deviation",
    criterion=">= 0.1 for each deviation",
)
def sigmoids_do_not(runs: Runs) -> Verdict:
    own = runs.part("outputs").by("scale").items()
    return over("deviation", {scale: at_least(arm.values("sigmoids off 1"), 0.1) for scale, arm in own})


@lab.claim(
    "1:104-107",
    "The softmax of 0.4 and 0.8 is 0.33 and 0.67.",
    measures="first output, of two, for (0.4, 0.8)",
    criterion="0.33 within 0.005",
)
def worked_example(runs: Runs) -> Verdict:
    """That is each number's share of the sum, without exponentials. Shares need positive numbers; with logits
    of either sign they are no probabilities (`dlexp activation=softmax_notes`). The example is right if
    0.4 and 0.8 are taken for the exponentials: softmax of their logarithms is 1/3 and 2/3.
    """
    own = runs.part("example")[0]
    said = f"softmax {own.number('softmax'):.3f}, share of the sum {own.number('share'):.3f}, softmax of logs"
    return fact(abs(own.number("softmax") - 0.33) <= 0.005, f"{said} {own.number('of logs'):.3f}")


@lab.claim(
    "3:200",
    "Softmax outputs the probability of each class.",
    measures="expected calibration error on test samples, |confidence - accuracy|, of softmax regression and"
    " an MLP, the worse of the two, by how many samples they were trained on; 1500 updates each",
    criterion="<= 0.05 for each number of samples",
)
def are_probabilities(runs: Runs) -> Verdict:
    """They are numbers that sum to one. Probabilities they are as far as the loss makes them so on unseen
    samples, and cross-entropy rewards ever larger logits on samples that are already right: where these are
    few a network grows sure of itself, and wrong. (At first 300 samples were judged by epochs; by samples
    since a look at the numbers, for it is one factor.)
    """
    arms = runs.part("softmax_facts_calibration").by("data.samples").values()
    verdicts = {trained_on(own[0]): at_most(own.largest("ece/test"), CALIBRATED) for own in arms}
    return over("training samples", verdicts)


@lab.claim(
    "3:208",
    "Being non-linear, softmax can learn complex relationships, of data that are not linearly separable.",
    measures="test accuracy on two moons, softmax regression minus MLP, each at its best learning rate",
    criterion=">= -0.02; control: the MLP has 0.9",
)
def learns_curves(runs: Runs) -> Verdict:
    """Its boundary is where two logits are equal, and those are linear: softmax regression draws the same
    straight line as logistic regression. It takes a hidden layer.
    """
    mlp = moons(runs, "mlp")
    return given({"MLP": at_least(mlp, 0.9)}, at_least(minus(moons(runs, "softmax_regression"), mlp), -0.02))


@lab.claim(
    "3:208",
    "Theory: softmax regression on two classes does what logistic regression does.",
    measures="test accuracy on two moons, each at its best learning rate, size of the difference",
    criterion="<= 0.02",
)
def as_logistic_on_moons(runs: Runs) -> Verdict:
    difference = minus(moons(runs, "softmax_regression"), moons(runs, "logistic_regression"))
    return at_most({seed: abs(x) for seed, x in difference.items()}, 0.02)


@lab.claim(
    "3:209",
    "Softmax is differentiable.",
    measures="largest difference of its derivatives by autograd from central differences, float64",
    criterion="<= 1e-8",
)
def differentiable(runs: Runs) -> Verdict:
    return identity(deriv(runs, "differences"), 1e-8)


@lab.claim(
    "3:259a",
    "The derivative of softmax is softmax (1 - softmax).",
    measures="dp/dz at random logits: by the output's own logit, difference from the formula; by other"
    " logits, mean size relative to the former",
    criterion="<= 1e-10; <= 0.01, for they have no place in the formula",
)
def elementwise(runs: Runs) -> Verdict:
    """That is how an output depends on its own logit. It depends on all the others, too: -p_i p_j. Without
    those a step would not know that one class rises only where others fall.
    """
    found = {
        "own logit": identity(deriv(runs, "on the diagonal"), 1e-10),
        "other logits": at_most(deriv(runs, "off the diagonal"), 0.01),
    }
    return over("which logit", found)


@lab.claim(
    "3:216",
    "Softmax suffers from vanishing gradients.",
    measures="by what follows: gradient of the right class's logit at a confident wrong answer (10 below the"
    " other); before further layers, share of the error that passes a softmax of 64 units",
    criterion="<= 1e-3 before each loss; <= 0.05 before further layers",
)
def vanishing(runs: Runs) -> Verdict:
    """The loss decides. Cross-entropy cancels the flat part: the more wrong, the nearer to 1. Squared error
    keeps it: the more wrong, the less is learned. In a hidden layer each unit is about 1/64, and so is J.
    """
    own = runs.part("saturated")
    found = {name: at_most(own.values(name), 1e-3) for name in ("cross-entropy", "squared error")}
    return over("what follows", {**found, "further layers": at_most(own.values("hidden layer"), 0.05)})


@lab.claim(
    "3:220",
    "Max cannot be used, being not differentiable: hence softmax.",
    measures="length of the gradient at random logits, of the largest one, and of its one-hot vector",
    criterion="<= 1e-6: nothing to learn by",
)
def no_max(runs: Runs) -> Verdict:
    """Two functions bear that name. The largest value has a gradient wherever two logits do not tie, 1 for
    the largest, and max pooling learns by it. What softmax softens is the other one, which of them is the
    largest: its slope is 0 throughout, and that is why it cannot train. The soft form of the value is
    logsumexp, whose gradient softmax is.
    """
    found = {
        "the value (max)": at_most(deriv(runs, "max gradient"), 1e-6),
        "the place (hardmax)": at_most(deriv(runs, "hardmax gradient"), 1e-6),
    }
    return over("which max", found)


@lab.claim(
    "3:220",
    "Theory: max is differentiable at all but a few points, and softmax is the gradient of its soft form.",
    measures="gradient of max against central differences; of logsumexp against softmax",
    criterion="<= 1e-6; <= 1e-12",
)
def max_has_a_gradient(runs: Runs) -> Verdict:
    found = {
        "max": identity(deriv(runs, "max differs"), 1e-6),
        "logsumexp": identity(deriv(runs, "logsumexp"), 1e-12),
    }
    return all_of(found)


@lab.claim(
    "3:213",
    "Softmax can be used for ranking.",
    measures="NDCG (1 is the best order) of lists of ten: softmax over a list (ListNet) at its best rate,"
    " random order",
    criterion="larger by 0.1",
)
def ranks(runs: Runs) -> Verdict:
    return exceeds(ndcg(runs, "listnet"), runs.part("random_order").values("ndcg"), by=0.1)


@lab.claim(
    "3:213",
    "A softmax over the list orders it as well as squared error on the grades (a yardstick of ours).",
    measures="NDCG (1 is the best order) of lists of ten, ListNet minus squared error, each at its best rate",
    criterion=">= -0.02",
)
def ranks_as_well(runs: Runs) -> Verdict:
    """Each loss wants its own rate: squared error diverges at rates at which ListNet still learns."""
    return at_least(minus(ndcg(runs, "listnet"), ndcg(runs, "mse")), -0.02)


def ndcg(runs: Runs, loss: str) -> dict[int, float]:
    """At the best learning rate."""
    best = runs.part("softmax_facts_ranking").best(by="ndcg/validation")
    return best.of(f"loss={loss}").values("ndcg/test")


@lab.claim(
    "3:436",
    "Softmax generalizes logistic regression to several classes.",
    measures="largest difference of the softmax of two random logits from the sigmoid of their difference",
    criterion="<= 1e-6",
)
def generalizes_logistic(runs: Runs) -> Verdict:
    return identity(deriv(runs, "pair"), 1e-6)


@lab.claim(
    "3:436",
    "With softmax and cross-entropy the gradient of the logits is p - y.",
    measures="largest difference from autograd's gradient at random logits, float64",
    criterion="<= 1e-12",
)
def p_minus_y(runs: Runs) -> Verdict:
    """All of J cancels: what is left is by how much each probability is wrong."""
    return identity(deriv(runs, "p - y"), 1e-12)


@lab.claim(
    "3:436",
    "Softmax is a soft hardmax, which puts 1 at the largest logit and 0 elsewhere.",
    measures="largest difference of the softmax of 10^6 times random logits from their hardmax",
    criterion="<= 1e-6",
)
def soft_hardmax(runs: Runs) -> Verdict:
    return identity(deriv(runs, "hardmax"), 1e-6)


@lab.picture(
    "Left: gradient of the right class's logit by how far it is ahead of the other; dashed: 1 - p and"
    " 2 p (1 - p)², the theory. Right: calibration error on unseen samples; dots are seeds; dotted: 0.05."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    theory = {"cross-entropy": lambda p: 1 - p, "squared error": lambda p: 2 * p * (1 - p) ** 2}
    left.set(yscale="log", ylim=(1e-7, 3))
    for (name, formula), colour in zip(theory.items(), (BLUE, VERMILLION), strict=True):
        for run in runs.part("saturated")[:1]:
            gaps, sizes = run.measured["gap"], run.measured[f"{name} along"]
            left.plot(gaps, sizes, color=colour, lw=1.8)
            expected = [formula(1 / (1 + math.exp(-gap))) for gap in gaps]
            left.plot(gaps, expected, "--", color=BLACK, lw=1, alpha=0.6)
            at = (2.5, 0.3) if name == "cross-entropy" else (-9.5, 2e-6)
            left.annotate(name, at, color=ink(colour), weight="bold")
    left.axvline(CONFIDENT, color=GREY, ls=":", lw=1)
    say_y(left, "Behind which loss", "gradient of the right class's logit")
    left.set_xlabel("logit of the right class minus that of the other", color=GREY)
    words = []
    models = runs.part("softmax_facts_calibration").by("model").items()
    for (model, own), colour in zip(models, (BLUE, VERMILLION), strict=False):
        arms = own.by("data.samples").values()
        points = {trained_on(arm[0]): list(arm.values("ece/test").values()) for arm in arms}
        means = [fmean(points[n]) for n in sorted(points)]
        right.plot(sorted(points), means, color=colour, lw=1.4)
        for n, ys in points.items():
            right.plot([n] * len(ys), ys, "o", color=colour, ms=3, alpha=0.6)
        words.append((means[-1], model, colour))
    right.set(xscale="log")
    right.set_ylim(bottom=0)
    right.axhline(CALIBRATED, color=GREY, ls=":", lw=1)
    beside(right, [(share(right, y), model.replace("_", "\n"), colour) for y, model, colour in words])
    say_y(right, "ece/test", "distance of confidence from accuracy, after 1500 updates")
    right.set_xlabel("training samples", color=GREY)
    return figure


if __name__ == "__main__":
    lab.main()

"""What does normalising inputs buy, and what is leakage?

The loss of a linear model has the curvature H = E[x x^T] (times the slope of the loss). Gradient descent is
as fast as the ratio of its largest to its smallest eigenvalue, the condition number k, lets it be:

    largest rate 2 / L,   best rate 2 / (L + m),   each step leaves (k - 1) / (k + 1) of the error

so a millionth takes about k ln(1e6) / 2 = 6.9 k steps. Independent features that differ in scale by r have
k = r^2, contours r times as long as wide. Normalising, (x - mean) / deviation, takes k to 1; where features
are correlated some of it stays.

Mean and deviation are part of the model: new samples are scaled as those that it has learned from. To let
the test set have a say in them is called leakage; how much leaks is to be measured.
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
    changes,
    exceeds,
    matters,
    minus,
    near,
    over,
)
from dlexp.lab.verdict import spread_of
from dlexp.plots.style import BLACK, BLUE, GREY, VERMILLION, beside, inches, say_y, share

ONE_SCALE = "digits, as they are"  # pixels

lab = Experiment(
    __file__,
    __doc__,
    quick="seeds=1 data=gaussians data.standardize=none ratio=3 size=20 draws=1 train.max_steps=2"
    " test=drifted arm='optimizer.lr=0.1'",
)


@lab.measure(data=["wine", "breast_cancer", "gaussians"], seeds=5)
def curvature(seed: int, data: str) -> dict[str, float]:
    """Condition number of the loss of logistic regression at weights of 0; the seed is of the split."""
    import torch

    from dlexp.data.synthetic import gaussians
    from dlexp.data.tables import breast_cancer, wine

    shares: dict[str, Any] = {"validation": 0.15, "test": 0.15, "train_dev": 0.0, "split_seed": seed}
    own = {"samples": 2000, "features": 10, "distance": 2.0, "correlation": 0.0, "sample_seed": seed}
    make = {"wine": wine, "breast_cancer": breast_cancer, "gaussians": gaussians}[data]
    found = {}
    for how in ("none", "feature", "bad_scale"):
        x = make(**shares, **(own if data == "gaussians" else {}), standardize=how).train.inputs.double()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)  # with the bias
        eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x) / 4)
        found[how] = float(eigenvalues[-1] / eigenvalues[0].clamp(min=1e-300))
    return found


@lab.measure(ratio=[1, 3, 10, 30], seeds=5)
def descent(seed: int, ratio: int) -> dict[str, Any]:
    """Steps to a millionth of the error at the best rate there is; two features of scales 1 and 1 / ratio."""
    import torch

    torch.manual_seed(seed)
    x = torch.linalg.qr(torch.randn(500, 2, dtype=torch.float64))[0] * 500**0.5  # independent, deviation 1
    x = x * torch.tensor([1.0, 1 / ratio])
    curved = x.T @ x / 500
    low, high = torch.linalg.eigvalsh(curved).tolist()
    w = torch.randn(2, dtype=torch.float64).sign() / torch.tensor([1.0, 1 / ratio])  # equally wrong in both
    begun, path, steps = float(w @ curved @ w), [w.tolist()], 0
    while float(w @ curved @ w) > 1e-12 * begun and steps < 1_000_000:
        w, steps = w - 2 / (low + high) * (curved @ w), steps + 1
        if steps <= 60:
            path.append(w.tolist())
    return {"condition": high / low, "steps": steps, "path": path}


def model_of(x: Any, y: Any, mean: Any, deviation: Any) -> Any:
    """Logistic regression, with scikit-learn's default penalty, on what is scaled so."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit((x - mean) / deviation, y)


@lab.measure(size=[20, 100, 1000], draws=60, seeds=5)
def leak(seed: int, size: int, draws: int) -> dict[str, float]:
    """Test accuracy where the test set has a say, minus the honest one: of the scaling, of choosing features.

    Size samples to learn from, half as many to test on; 20 features of scales 0.01 to 100. For the choice:
    labels by the toss of a coin, 1000 features of noise, and of them the 20 that go best with all labels.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    scales, scaling, choosing = np.logspace(-2, 2, 20), [], []
    for _ in range(draws):
        n = size + size // 2
        y = np.arange(n) % 2
        x = (rng.standard_normal((n, 20)) + (y[:, None] - 0.5) * 2 / 20**0.5) * scales
        right = []
        for known in (x, x[:size]):  # all samples; those to learn from
            mean, deviation = known.mean(axis=0), known.std(axis=0)
            model = model_of(x[:size], y[:size], mean, deviation)
            right.append(model.score((x[size:] - mean) / deviation, y[size:]))
        scaling.append(right[0] - right[1])
    for _ in range(max(1, draws // 10)):
        noise, right = rng.standard_normal((n, 1000)), []
        for rows in (n, size):
            sides = noise[:rows][y[:rows] == 1].mean(axis=0) - noise[:rows][y[:rows] == 0].mean(axis=0)
            best = np.argsort(-np.abs(sides))[:20]
            model = model_of(noise[:size, best], y[:size], 0, 1)
            right.append(model.score(noise[size:][:, best], y[size:]))
        choosing.append(right[0] - right[1])
    return {"scaling": float(np.mean(scaling)), "choosing": float(np.mean(choosing))}


@lab.measure(test=["all at once", "ten at a time", "class by class", "drifted"], seeds=5)
def at_test(seed: int, test: str) -> dict[str, float]:
    """Accuracy on new digits, scaled as those of training, and by the mean and deviation of their own group.

    The drifted ones are 1.5 x + 1 deviation, all at once.
    """
    import numpy as np

    from dlexp.data.digits import read

    pictures = read()
    every, labels = pictures.inputs.flatten(1).double().numpy(), pictures.targets.numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    old, new = order[:1200], order[1200:]
    if test == "class by class":
        new = new[np.argsort(labels[new], kind="stable")]
    mean, deviation = moments(every[old])
    model = model_of(every[old], labels[old], mean, deviation)
    fresh = 1.5 * every[new] + deviation if test == "drifted" else every[new]
    cuts = {
        "ten at a time": list(range(10, len(new), 10)),
        "class by class": np.flatnonzero(np.diff(labels[new])) + 1,
    }
    said = []
    for group in np.split(fresh, cuts.get(test, [])):
        own_mean, own_deviation = moments(group)
        said.append(model.predict((group - own_mean) / own_deviation))
    return {
        "training": float((model.predict((fresh - mean) / deviation) == labels[new]).mean()),
        "own": float((np.concatenate(said) == labels[new]).mean()),
    }


def moments(x: Any) -> tuple[Any, Any]:
    """Mean and deviation of each feature; 1 where it never changes."""
    deviation = x.std(axis=0)
    return x.mean(axis=0), deviation + (deviation == 0)


@lab.claim(
    "3:391",
    "Normalising the inputs makes the contours of the loss rounder.",
    measures="condition number of the curvature, logistic regression at weights of 0: inputs as they are (of"
    " independent Gaussians: badly scaled) over normalised ones",
    criterion="a ratio of 100 or more on each data set",
)
def rounder(runs: Runs) -> Verdict:
    """Rounder, not round: features that say nearly the same thing stay so. The 30 of breast_cancer keep a
    condition number of 1e5, the independent Gaussians 2, their means being apart.
    """
    found = {}
    for data, own in runs.part("curvature").by("data").items():
        before, after = own.values("bad_scale" if data == "gaussians" else "none"), own.values("feature")
        verdict = at_least({seed: before[seed] / after[seed] for seed in before}, 100)
        found[data.replace("_", " ")] = verdict.says(f"left {spread_of(after.values())}, ratio")
    return all_of(found)


@lab.claim(
    "3:391",
    "With rounder contours gradient descent gets to the minimum in fewer steps.",
    measures="steps to a millionth of the error, two features whose scales differ, at the best rate there is;"
    " 1:1 is normalised",
    criterion="as many as theory has it, ln(1e-6) / ln((k - 1) / (k + 1)), within 2 %",
)
def steps_by_theory(runs: Runs) -> Verdict:
    """Nothing but the condition number counts: three times the scale, nine times the steps."""
    found = {}
    for ratio, own in runs.part("descent").by("ratio").items():
        found[f"scales 1:{ratio}"] = near(own.values("steps"), theory(own[0].number("condition")), 0.02)
    return all_of(found)


def theory(condition: float) -> float:
    """Steps of gradient descent to a millionth, at its best rate."""
    left = (condition - 1) / (condition + 1)
    return math.log(1e-6) / math.log(left) if left > 1e-9 else 1.0


@lab.claim(
    "3:391",
    "Gradient descent learns faster from normalised inputs, where features differ in scale.",
    measures="decades of training loss after five epochs, from normalised inputs up to inputs as they are or"
    " badly scaled, each at the rate of least loss, of 1e-5 to 1",
    criterion="0.3, twice the loss, or more on each data set",
)
def faster(runs: Runs) -> Verdict:
    """The rates reach down to 1e-5, so that each scale has one that suits it; what is left is the condition
    number. Digits as they are do not belong here, as their pixels are of one scale. (The first criterion was
    0.1 of test accuracy; but test sets of 27 and 85 samples cannot tell that, and end alike.)
    """
    return over("data", by_data(runs, "sgd"))


@lab.claim(
    "3:391",
    "Adam learns faster from normalised inputs, too, where features differ in scale.",
    measures="decades of training loss after five epochs, from normalised inputs up to inputs as they are or"
    " badly scaled, each at the rate of least loss, of 0.001 to 0.1",
    criterion="0.3, twice the loss, or more on each data set",
)
def adam_too(runs: Runs) -> Verdict:
    """It has a step of its own for each weight, which makes up for much of a bad scale, not for all of it."""
    return over("data", by_data(runs, "adam"))


def by_data(runs: Runs, optimizer: str) -> dict[str, Verdict]:
    found = {}
    best = runs.part("input_scaling").best(by="loss/train").of(f"optimizer={optimizer}")
    for data, arms in best.by("data").items():
        good = arms.of("data.standardize=feature").values(loss)
        for how, name in (("none", "as they are"), ("bad_scale", "badly scaled")):
            bad = arms.of(f"data.standardize={how}").values(loss)
            if bad and f"{data}, {name}" != ONE_SCALE:
                found[f"{data.replace('_', ' ')}, {name}"] = changes(minus(bad, good), 0.3)
    return found


def loss(run: Run) -> float:
    """Decimal logarithm of the training loss."""
    found = run.number("loss/train")
    return math.log10(found) if found > 0 else math.nan


@lab.claim(
    "3:356 3:391",
    "New samples are to be normalised with mean and deviation of the training set, not with their own.",
    measures="accuracy of logistic regression on new digits, scaled as those of training against scaled by"
    " their own group",
    criterion="0.01 more with those of the training set, for each kind of group",
)
def of_training(runs: Runs) -> Verdict:
    """With a small group, or one that is not mixed as training was, its own mean takes away what tells
    classes apart. The exception is a drift of the instrument: just that is what the group's mean takes away.
    """
    own = runs.part("at_test").by("test").items()
    return over(
        "kind of group", {name: exceeds(x.values("training"), x.values("own"), by=0.01) for name, x in own}
    )


@lab.claim(
    "3:356",
    "If the test set has a say in the normalisation there is data leakage.",
    measures="test accuracy of logistic regression with mean and deviation of all samples minus that with"
    " those of the training set, mean of 60 draws",
    criterion="0.01 or more is gained by it, at each number of samples",
)
def leakage(runs: Runs) -> Verdict:
    """By definition it is leakage; but next to nothing leaks: mean and deviation know no labels. The same
    mistake where labels have a say, in choosing features, lets pure noise look like knowledge. (Networks on
    wine, breast_cancer and digits were compared as well at first; their test sets cannot tell 0.01.)
    """
    found, choosing = {}, []
    for size, own in runs.part("leak").by("size").items():
        found[size] = matters(own.values("scaling"), 0.01)
        choosing.append(f"{size}: {spread_of(own.values('choosing').values())}")
    return over("samples to learn from", found).says(
        f"gained by choosing features with all labels: {', '.join(choosing)}; by scaling"
    )


@lab.picture(
    "Left the loss of two features, scales 1 and 1/3, and normalised: contours and the path of 60 steps of"
    " gradient descent. Then the steps it takes, dashed: theory. Right what a test set that has a say"
    " in scaling, or in choosing features, adds to its own accuracy."
)
def picture(runs: Runs) -> Figure:
    figure = Figure(figsize=(14.5, 3.7))
    inches(figure, left=0.4, right=1.6, top=0.75, bottom=0.55, columns=4, across=0.75)
    axes = [figure.add_subplot(1, 4, i + 1) for i in range(4)]
    for axis, ratio, title in ((axes[0], 3, "scales 1 and 1/3"), (axes[1], 1, "normalised")):
        for run in list(runs.part("descent").of(f"ratio={ratio}"))[:1]:
            path = (run.measured or {}).get("path", [])
            for size in (0.2, 0.5, 1.0, 1.4):
                turn = [2 * math.pi * i / 100 for i in range(101)]
                axis.plot(
                    [size * math.cos(t) for t in turn],
                    [size * ratio * math.sin(t) for t in turn],
                    "-",
                    color=GREY,
                    lw=0.8,
                    alpha=0.6,
                )
            axis.plot([x for x, _ in path], [y for _, y in path], "o-", color=BLUE, ms=3, lw=1.2)
            axis.plot(0, 0, "+", color=BLACK, ms=9, mew=1.5)
            steps = f"{run.number('steps'):.0f} steps" if run.number("steps") > 1 else "one step"
            say_y(axis, title, f"{steps} to a millionth")
        axis.set(xticks=[], yticks=[], xlim=(-1.8 * ratio, 1.8 * ratio), ylim=(-1.6 * ratio, 1.6 * ratio))
        axis.grid(visible=False)
    of_steps, of_leak = axes[2:]
    ks = [10 ** (i / 10) for i in range(1, 34)]
    of_steps.plot(ks, [theory(k) for k in ks], "--", color=BLACK, lw=1, alpha=0.7)
    for run in runs.part("descent"):
        of_steps.plot(run.number("condition"), run.number("steps"), "o", color=BLUE, ms=4)
    of_steps.set_xscale("log")
    of_steps.set_yscale("log")
    of_steps.set_xlabel("condition number", color=GREY)
    say_y(of_steps, "steps", "to a millionth of the error")
    ends = []
    for name, label, colour in (("scaling", "scaling", BLUE), ("choosing", "choosing features", VERMILLION)):
        points = {
            int(size): list(own.values(name).values()) for size, own in runs.part("leak").by("size").items()
        }
        means = {size: sum(own) / len(own) for size, own in points.items()}
        of_leak.plot(list(means), list(means.values()), "-", color=colour, lw=1.4)
        for size, own in points.items():
            of_leak.plot([size] * len(own), own, "o", color=colour, ms=3, alpha=0.6)
        ends += [(means[max(means)], label, colour)] if means else []
    of_leak.set_xscale("log")
    of_leak.set_xlabel("samples to learn from", color=GREY)
    say_y(of_leak, "leakage", "gained in test accuracy")
    beside(of_leak, [(share(of_leak, end), label, colour) for end, label, colour in ends])
    return figure


if __name__ == "__main__":
    lab.main()

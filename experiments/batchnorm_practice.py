"""Where does batch norm belong, what does it buy, and what breaks it?

In training each unit is normalised with the mean and deviation of the batch, then scaled and shifted:

    y = gamma (z - mean) / sqrt(variance + eps) + beta

So a bias before it does nothing (the mean takes it away, its gradient is 0 but for rounding), and the size of
the weights does not count: those of ten times the size give the same y, and a tenth of the gradient. Too
large a step therefore only makes weights long, which makes later steps small. With gamma the deviation and
beta the mean, y is z again: nothing is lost.

With its own batch a sample's answer depends on its company. At test running averages take its place, of
which each step keeps 0.9: after t steps 0.9^t of their start is left in them.
"""

import math
from collections.abc import Iterable
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
    changes,
    given,
    identity,
    minus,
    near,
    over,
)
from dlexp.lab.draw import panels
from dlexp.lab.verdict import spread_of
from dlexp.plots.style import BLACK, BLUE, GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["batchnorm_practice", "batchnorm_practice_few"],
    quick="seeds=1 activation=relu optimizer.lr=0.1 train.max_steps=5 rate=0.1 steps=20",
)
GROUPS = ("64", "8", "2", "one class")  # test samples that meet in a batch
USABLE = 0.8  # test accuracy


def digits(seed: int) -> tuple[Any, Any, Any, Any]:
    """Pixels of mean 0 and deviation 1, and labels: 1300 to learn from, the others to test on."""
    import torch

    from dlexp.data.digits import read

    every = read()
    order = torch.randperm(len(every.targets), generator=torch.Generator().manual_seed(seed))
    inputs, labels = every.inputs.flatten(1)[order], every.targets[order]
    inputs = (inputs - inputs[:1300].mean()) / inputs[:1300].std()
    return inputs[:1300], labels[:1300], inputs[1300:], labels[1300:]


def network(depth: int, activation: str, *between: str) -> Any:
    """Layers of 64 units, each followed by what `between` names ("norm", "shake") and the activation."""
    from torch import nn

    made = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}[activation]
    extras = {"norm": lambda: nn.BatchNorm1d(64), "shake": shaker}
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(64, 64), *(extras[name]() for name in between), made()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def shaker() -> Any:
    """In training a shift and a scale for each unit, drawn anew at each step: covariate shift by force."""
    import torch

    class Shake(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            if not self.training:
                return z
            shift, scale = 0.5 * torch.randn(z.shape[1]), 1 + 0.25 * torch.randn(z.shape[1])
            return scale * z + shift

    return Shake()


def train(net: Any, x: Any, y: Any, rate: float, steps: int) -> None:
    """Gradient descent on batches of 64."""
    import torch

    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@lab.measure(activation=["sigmoid", "tanh", "relu"], seeds=5)
def identities(seed: int, activation: str) -> dict[str, float]:
    """What a bias before the norm, and the size of the weights, do to outputs and gradients."""
    import torch

    torch.manual_seed(seed)
    x, y, *_ = digits(seed)
    net, functional = network(1, activation, "norm"), torch.nn.functional
    first, norm = net[0], net[1]

    def gradients() -> tuple[Any, Any, Any]:
        net.zero_grad()
        out = net(x[:64])
        functional.cross_entropy(out, y[:64]).backward()
        return out.detach(), first.weight.grad.clone(), first.bias.grad.clone()

    out, of_weight, of_bias = gradients()
    with torch.no_grad():
        first.bias += 10
    shifted, *_ = gradients()
    with torch.no_grad():
        first.bias -= 10
        first.weight *= 10
        first.bias *= 10
    larger, of_larger, _ = gradients()
    with torch.no_grad():
        z = first(x[:64])
        norm.weight.copy_((z.var(dim=0, correction=0) + norm.eps).sqrt())
        norm.bias.copy_(z.mean(dim=0))
        restored = norm(z)
    return {
        "bias": float(of_bias.norm() / of_weight.norm()),
        "shifted": float((shifted - out).abs().max()),
        "larger": float((larger - out).abs().max()),
        "gradient": float(of_larger.norm() / of_weight.norm()),
        "restored": float((restored - z).abs().max() / z.std()),
    }


@lab.measure(steps=[5, 20, 400], seeds=5)
def at_test(seed: int, steps: int) -> dict[str, float]:
    """Test accuracy with running averages, with those of all training samples, and with a batch's own.

    `moved` is the share of answers that change with the company a sample is in.
    """
    import torch

    torch.manual_seed(seed)
    x, y, new, labels = digits(seed)
    net = network(3, "relu", "norm")
    train(net, x, y, 0.1, steps)
    norms = [m for m in net if isinstance(m, torch.nn.BatchNorm1d)]
    found, said = {}, {}
    with torch.no_grad():
        net.eval()
        found["running"] = float((net(new).argmax(1) == labels).float().mean())
        for norm in norms:
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None  # its own batch
        for name in GROUPS:
            order = labels.argsort() if name == "one class" else torch.randperm(len(labels))
            size = 40 if name == "one class" else int(name)
            answers = torch.cat([net(rows).argmax(1) for rows in new[order].split(size) if len(rows) > 1])
            found[f"own_{name}"] = float((answers == labels[order[: len(answers)]]).float().mean())
            said[name] = dict(zip(order.tolist(), answers.tolist(), strict=False))
        both = said["64"].keys() & said["8"].keys()
        found["moved"] = sum(said["64"][i] != said["8"][i] for i in both) / len(both)
        together = net(torch.cat([x, new]))[len(x) :]  # so many of training that the test hardly counts
        found["whole"] = float((together.argmax(1) == labels).float().mean())
    return found


@lab.measure(
    activation=["sigmoid", "tanh", "relu"],
    norm=["none", "batch"],
    rate=[0.03, 0.1, 0.3, 1, 3],
    steps=200,
    seeds=5,
)
def sooner(seed: int, activation: str, norm: str, rate: float, steps: int) -> dict[str, float]:
    """Steps until five layers, with He's weights, are right on 0.95 of new samples; asked every 5th."""
    import torch

    torch.manual_seed(seed)
    x, y, new, labels = digits(seed)
    net = network(5, activation, *(["norm"] if norm == "batch" else []))
    for layer in (m for m in net if isinstance(m, torch.nn.Linear)):
        torch.nn.init.kaiming_normal_(layer.weight)
    for step in range(5, steps + 1, 5):
        train(net.train(), x, y, rate, 5)
        with torch.no_grad():
            if float((net.eval()(new).argmax(1) == labels).float().mean()) >= 0.95:
                return {"steps": step}
    return {"steps": steps + 5}


@lab.measure(norm=["none", "batch"], rate=[0.1, 0.3], steps=300, seeds=5)
def drift(seed: int, norm: str, rate: float, steps: int) -> dict[str, float]:
    """How far one update of the layers before it moves what the third of five tanh layers is given.

    `inputs`: the change of the mean of each input, in deviations (root mean square over inputs).
    `gradient`: how far the gradient of its weights turns, 1 - cosine. Both at every tenth step, averaged.
    """
    import copy

    import torch
    from torch import nn

    torch.manual_seed(seed)
    x, y, *_ = digits(seed)
    net = network(5, "tanh", *(["norm"] if norm == "batch" else []))
    third = [i for i, module in enumerate(net) if isinstance(module, nn.Linear)][2]
    moved, turned = [], []
    for _ in range(0, steps, 10):
        old = copy.deepcopy(net)
        train(net, x, y, rate, 1)
        with torch.no_grad():
            before, after = old[:third](x), net[:third](x)
        change = (after.mean(dim=0) - before.mean(dim=0)) / before.std(dim=0).clamp(min=1e-6)
        moved.append(float(change.square().mean().sqrt()))
        gradients = []
        for whole in (old, nn.Sequential(*net[:third], *old[third:])):
            loss = nn.functional.cross_entropy(whole(x[:256]), y[:256])
            gradients.append(torch.autograd.grad(loss, old[third].weight)[0].flatten())
        turned.append(1 - float(nn.functional.cosine_similarity(*gradients, dim=0)))
        train(net, x, y, rate, 9)
    return {"inputs": sum(moved) / len(moved), "gradient": sum(turned) / len(turned)}


@lab.measure(between=["none", "norm", "norm shake"], rate=[0.1, 0.5], steps=300, seeds=5)
def shaken(seed: int, between: str, rate: float, steps: int) -> dict[str, float]:
    """Test accuracy of a network with sigmoid, with batch norm, and with shifts by force behind it."""
    import torch

    torch.manual_seed(seed)
    x, y, new, labels = digits(seed)
    net = network(5, "sigmoid", *(between.split() if between != "none" else []))
    train(net, x[:1000], y[:1000], rate, steps)
    net.eval()
    with torch.no_grad():
        validation, test = (
            float((net(a).argmax(1) == b).float().mean()) for a, b in ((x[1000:], y[1000:]), (new, labels))
        )
    return {"accuracy/validation": validation, "accuracy/test": test}


def trained(runs: Runs, words: str) -> Runs:
    """Trained networks, each arm at its best learning rate."""
    return runs.part("batchnorm_practice").best().of(words)


PLACE = "normalization=batch normalization.affine=True normalization.position"


def by_place(runs: Runs, place: str, other: str) -> Verdict:
    found = {}
    for word in trained(runs, "normalization=batch").by("activation"):
        here, there = (trained(runs, f"activation={word} {PLACE}={at}") for at in (place, other))
        more = minus(here.values("accuracy/test"), there.values("accuracy/test"))
        found[word] = changes(more, 0.03)
    return over("activation", found)


@lab.claim(
    "3:353b",
    "Batch norm has its place after the activation.",
    measures="test accuracy of five layers with batch norm after minus before the activation, best rates",
    criterion="0.03 more, for each activation",
)
def after_activation(runs: Runs) -> Verdict:
    """It trains in either place, and as well. Note 3 has it both ways (3:433)."""
    return by_place(runs, "after", "before")


@lab.claim(
    "3:433a",
    "Batch norm has its place before the activation.",
    measures="test accuracy of five layers with batch norm before minus after the activation, best rates",
    criterion="0.03 more, for each activation",
)
def before_activation(runs: Runs) -> Verdict:
    return by_place(runs, "before", "after")


@lab.claim(
    "3:433a",
    "The bias of a layer in front of batch norm is redundant.",
    measures="norm of the bias's gradient relative to that of the weights; change of an output when 10 is"
    " added to the bias (float32)",
    criterion="gradient at most 1e-6, outputs within 1e-3",
)
def bias_is_redundant(runs: Runs) -> Verdict:
    """What is left is rounding, not a vanishing gradient."""
    found = {}
    for activation, own in runs.part("identities").by("activation").items():
        found[f"{activation}: gradient"] = identity(own.values("bias"), 1e-6)
        found[f"{activation}: outputs"] = identity(own.values("shifted"), 1e-3)
    return all_of(found)


@lab.claim(
    "3:433a",
    "With gamma and beta, which are learned, batch norm lets units have any mean and deviation.",
    measures="distance of the output from z, with beta the mean and gamma the deviation of z, in deviations",
    criterion="at most 1e-5: nothing is lost",
)
def gamma_and_beta(runs: Runs) -> Verdict:
    """Whether they are needed is another matter: see what accuracy is gained without them."""
    lost = []
    for word in trained(runs, "normalization=batch").by("activation"):
        own = trained(runs, f"activation={word} normalization=batch normalization.position=before")
        with_them, without = (
            own.of(f"normalization.affine={x}").values("accuracy/test") for x in ("True", "false")
        )
        lost.append(f"{word} {spread_of(minus(without, with_them).values())}")
    off = {run.seed: run.number("restored") for run in runs.part("identities").of("activation=relu")}
    return identity(off, 1e-5).says(f"accuracy gained without them: {', '.join(lost)}; restored")


@lab.claim(
    "3:433a",
    "A network with batch norm learns faster.",
    measures="steps until 0.95 of new samples are right, five layers, at the rate where that is soonest,"
    " without batch norm divided by with it; never within 200 counts as 205",
    criterion="twice as fast, for each activation",
)
def faster(runs: Runs) -> Verdict:
    """The gain is least with tanh, whose signals pass five layers of He's weights anyway."""
    found = {}
    for word, own in runs.part("sooner").by("activation").items():
        without, with_it = (soonest(own.of(f"norm={norm}")) for norm in ("none", "batch"))
        ratio = {seed: steps / with_it.get(seed, math.nan) for seed, steps in without.items()}
        said = f"{spread_of(without.values())} against {spread_of(with_it.values())} steps, ratio"
        found[word] = at_least(ratio, 2).says(said)
    return over("activation", found)


def soonest(runs: Runs) -> dict[int, float]:
    """Steps at the best rate."""
    rates = [own.values("steps") for own in runs.by("rate").values()]
    return min(rates, key=lambda steps: sum(steps.values()), default={})


@lab.claim(
    "3:433a",
    "Batch norm allows larger learning rates.",
    measures="the largest rate of 0.1 to 10 with a test accuracy of 0.8, five layers, with batch norm divided"
    " by without",
    criterion="three times as large, for each activation that learns at some rate without",
)
def larger_rates(runs: Runs) -> Verdict:
    """Ten times longer weights change no output and have a tenth of the gradient: a step that was too large
    makes the next ones small. All begin with He's weights: with PyTorch's default ones, tried first, ReLU
    reaches 0.8 at no rate without batch norm, which says more about those.
    """
    found, none = {}, []
    for word, own in runs.part("batchnorm_practice").by("activation").items():
        with_it, without = own.of(f"{PLACE}=before"), own.of("normalization=none")
        ratios = {}
        for seed in {run.seed for run in own}:
            most = [largest(run for run in arm if run.seed == seed) for arm in (with_it, without)]
            ratios[seed] = most[0] / most[1] if most[1] else math.inf if most[0] else math.nan
        if largest(without):
            said = f"to {largest(with_it):g} against {largest(without):g}, ratio"
            found[word] = at_least(ratios, 3).says(said)
        else:
            none.append(word)
    verdict = over("activation", found)
    return verdict.says(f"{', '.join(none)}: no rate is usable without; else") if none else verdict


def largest(runs: Iterable[Run]) -> float:
    """The largest rate that is usable; 0 if none is."""
    usable = [run for run in runs if run.number("accuracy/test") >= USABLE]
    return max((float(run.asked("optimizer.lr") or 0) for run in usable), default=0.0)


@lab.claim(
    "3:433a",
    "What passes through batch norm does not depend on the size of the weights: steps correct themselves.",
    measures="change of an output when the weights before it are made ten times as large; their gradient"
    " then, relative to before",
    criterion="outputs within 1e-3, gradient a tenth within 1 %",
)
def free_of_scale(runs: Runs) -> Verdict:
    found = {}
    for activation, own in runs.part("identities").by("activation").items():
        found[f"{activation}: outputs"] = identity(own.values("larger"), 1e-3)
        found[f"{activation}: gradient"] = near(own.values("gradient"), 0.1, within=0.01)
    return all_of(found)


@lab.claim(
    "3:356",
    "At test batch norm is to use the parameters of the training set, not those of the test samples.",
    measures="test accuracy with running averages minus that with mean and deviation of the test batch, after"
    " 400 steps",
    criterion="0.01 more, for batches of each size",
)
def not_its_own(runs: Runs) -> Verdict:
    """Large, mixed batches lose little. It is no matter of cheating: with its own batch a sample's answer
    hangs on its company, and a batch of one class is stripped of what tells the class.
    """
    own = late(runs)
    moved = spread_of(own.values("moved").values())
    more = {name: minus(own.values("running"), own.values(f"own_{name}")) for name in GROUPS}
    alone = spread_of(more.pop("one class").values())
    said = f"batches of one class {alone}; answers that differ between batches of 64 and of 8: {moved}"
    return over("size", {size: changes(x, 0.01) for size, x in more.items()}).says(f"{said}; mixed batches")


def late(runs: Runs) -> Runs:
    """Those that have had the most steps."""
    steps = runs.part("at_test").by("steps")
    return steps[max(steps, key=int)] if steps else Runs([])


@lab.claim(
    "3:433b",
    "At test running averages of the batches stand in for batch norm's parameters of the training set.",
    measures="test accuracy with mean and deviation of all training samples minus that with running averages",
    criterion="at most 0.01, after however many steps",
)
def running_averages(runs: Runs) -> Verdict:
    """Once they have caught up: after five steps 0.9^5 = 0.59 of their start is still in them."""
    arms = runs.part("at_test").by("steps").items()
    return over(
        "steps", {n: at_most(minus(own.values("whole"), own.values("running")), 0.01) for n, own in arms}
    )


@lab.claim(
    "3:433b",
    "Batch norm lowers the covariate shift: what a layer is given moves less while those before it learn.",
    measures="by one update of the layers before: change of the mean of a layer's inputs, in deviations; turn"
    " of its gradient, 1 - cosine; with batch norm relative to without, same rate",
    criterion="at most 0.8 of each, at rates 0.1 and 0.3",
)
def covariate_shift(runs: Runs) -> Verdict:
    found = {}
    for rate, own in runs.part("drift").by("rate").items():
        with_it, without = own.of("norm=batch"), own.of("norm=none")
        for name in ("inputs", "gradient"):
            base = without.values(name)
            ratio = {seed: x / base[seed] for seed, x in with_it.values(name).items() if seed in base}
            found[f"{name}, rate {rate}"] = at_most(ratio, 0.8)
    return all_of(found)


@lab.claim(
    "3:433b",
    "Batch norm helps because it lowers the covariate shift.",
    measures="test accuracy of five sigmoid layers, best rate: the share of what batch norm gains that is"
    " lost when behind it inputs are shifted by 0.5 deviations and scaled by 0.25, anew in each step",
    criterion="half of it or more; control: batch norm gains at least 0.1",
)
def because_of_shift(runs: Runs) -> Verdict:
    """It helps as well with several times the shift that there is without it, though the next batch norm
    takes a part of that out again. Santurkar et al. 2018 found the same: it repairs the size of signals.
    """
    best = runs.part("shaken").best("rate").by("between")
    if not {"none", "norm", "norm shake"} <= best.keys():
        return at_least({}, 0.5)
    none, norm, shake = (best[word].values("accuracy/test") for word in ("none", "norm", "norm shake"))
    gain, lost = minus(norm, none), minus(norm, shake)
    share = {seed: lost[seed] / gain[seed] if gain[seed] else math.nan for seed in gain}
    said = [spread_of(values.values()) for values in (none, norm, shake)]
    judged = at_least(share, 0.5).says(f"{said[0]} without, {said[1]} with, {said[2]} shifted; lost")
    return given({"gain": at_least(gain, 0.1)}, judged)


@lab.claim(
    "3:433b",
    "Batch norm is a slight regulariser.",
    measures="test accuracy with batch norm minus without, each at its best rate, two layers; accuracy on the"
    " training data in brackets",
    criterion="0.01 more on each data set",
)
def regulariser(runs: Runs) -> Verdict:
    """With few samples what is learned carries further. With wrong labels both do best at a rate at which
    they do not yet learn those by heart. (A first run was too short to learn anything by heart, a second had
    no rate that was small enough for batch norm; both were done again.)
    """
    found, fits = {}, []
    for data, own in runs.part("batchnorm_practice_few").best().by("data").items():
        one, other = (own.of(f"normalization={word}") for word in ("batch", "none"))
        name = NAMES.get(data, data)
        found[name] = changes(minus(one.values("accuracy/test"), other.values("accuracy/test")), 0.01)
        fit = [spread_of(arm.values("accuracy/train").values()) for arm in (one, other)]
        fits.append(f"{name} [{fit[0]} with, {fit[1]} without]")
    return over("data", found).says(f"on training data {', '.join(fits)}; on test data")


NAMES = {"digits_few": "100 samples", "digits_mislabelled": "300 samples, a fifth mislabelled"}


@lab.picture(
    "Left and middle test accuracy by learning rate, five hidden layers; mean and each of five seeds. Right"
    " test accuracy where a batch brings its own statistics; dotted: with running averages."
)
def picture(runs: Runs) -> Figure:
    figure, axes = panels(3)
    arms = {
        "none": "normalization=none",
        "before": f"{PLACE}=before",
        "after": f"{PLACE}=after",
    }
    for axis, activation in zip(axes, ("sigmoid", "relu"), strict=False):
        own = runs.part("batchnorm_practice").of(f"activation={activation}")
        ends, top = [], max((float(rate) for rate in own.by("optimizer.lr")), default=0.0)
        for colour, (label, words) in zip(WORD_COLOURS, arms.items(), strict=False):
            points = {
                float(rate): list(x.values("accuracy/test").values())
                for rate, x in own.of(words).by("optimizer.lr").items()
            }
            points = {rate: [x for x in xs if math.isfinite(x)] for rate, xs in points.items()}
            points = {rate: xs for rate, xs in sorted(points.items()) if xs}
            if not points:
                continue
            means = [sum(xs) / len(xs) for xs in points.values()]
            axis.plot(list(points), means, "-", color=colour, lw=1.4)
            for rate, xs in points.items():
                axis.plot([rate] * len(xs), xs, "o", color=colour, ms=3, alpha=0.6)
            if max(points) < top:
                axis.plot(max(points), means[-1], "x", color=colour, ms=9, mew=2.2, zorder=5)
            ends.append((means[-1], label, colour))
        axis.set_xscale("log")
        axis.set_ylim(0, 1.03)
        axis.set_xlabel("learning rate", color=GREY)
        say_y(axis, activation, "test accuracy; cross: diverges from here on")
        beside(axis, [(share(axis, end), label, colour) for end, label, colour in ends])
    last, own = axes[2], late(runs)
    for i, name in enumerate(GROUPS):
        values = list(own.values(f"own_{name}").values())
        if values:
            last.bar(i, sum(values) / len(values), color=BLUE, alpha=0.35, width=0.6)
            last.plot([i] * len(values), values, "o", color=BLUE, ms=3)
    running = list(own.values("running").values())
    if running:
        mean = sum(running) / len(running)
        last.axhline(mean, color=BLACK, ls=":", lw=1)
        beside(last, [(share(last, mean), "running averages", BLACK)])
    last.set_xticks(range(len(GROUPS)), GROUPS)
    last.set_ylim(0, 1.03)
    last.set_xlabel("test samples in a batch", color=GREY)
    say_y(last, "statistics of the test batch", "test accuracy")
    return figure


if __name__ == "__main__":
    lab.main()

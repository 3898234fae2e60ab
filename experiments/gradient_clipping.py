"""What does clipping fix?

By norm the gradient g is replaced by g min(1, c / |g|): its direction stays, and no step is longer than c
times the learning rate. By value every entry is cut to [-v, v]: that limits a step as well, but turns it.

Nothing upstream changes: the same layers multiply the same error by the same factor, here 1.5 in each of ten
layers. What is cut is the harm of it, a step so long that the next gradient is larger still. And while it
acts, only c times the rate matters: c = 1 at rate 1 trains like c = 0.1 at rate 10.
"""

import json
import math
from itertools import pairwise
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
    exceeds,
    identity,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["gradient_clipping", "gradient_clipping_rnn"],
    quick="seeds=1 arm='clip=none','clip=norm' initializer.gain=2.1213 optimizer.lr=0.1 train.max_steps=2",
)
USABLE = 0.8  # test accuracy at which a learning rate counts as usable
NETWORKS = {"1.4142": "keeps the error", "2.1213": "explodes"}  # gain -> what ten layers do


@lab.measure(clip=["by_norm", "by_value"], threshold=[0.01, 0.1, 0.5, 1], seeds=5)
def clipped(seed: int, clip: str, threshold: float) -> dict[str, float]:
    """A gradient of a network that explodes, before and after clipping, in float64."""
    import torch

    from dlexp.data.digits import read
    from dlexp.train import clip as clips

    generator, every = torch.Generator().manual_seed(seed), read()
    pixels, classes = every.inputs[:64].flatten(1).double(), every.targets[:64]
    signal = (pixels - pixels.mean()) / pixels.std()
    sizes = [64] * 11 + [10]
    weights = []
    for inputs, outputs in pairwise(sizes):
        drawn = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        weights.append((drawn * 1.5 * math.sqrt(2 / inputs)).requires_grad_())
        signal = signal.relu() @ weights[-1].T if len(weights) > 1 else signal @ weights[-1].T
    torch.nn.functional.cross_entropy(signal, classes).backward()
    raw = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    getattr(clips, clip)(weights, threshold)
    tamed = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    largest = float(tamed.norm() if clip == "by_norm" else tamed.abs().max())
    return {
        "raw": float(raw.norm()),
        "excess": max(0.0, largest / threshold - 1),
        "cosine": float(raw @ tamed / raw.norm() / tamed.norm()),
    }


def label(run: Run) -> str:
    """How a run clips, in short."""
    value = run.asked("clip.max_norm") or run.asked("clip.clip_value")
    return f"{run.asked('clip')} {value}" if value else "none"


def by_clip(runs: Runs) -> dict[str, Runs]:
    names = dict.fromkeys(map(label, runs))
    return {name: Runs([run for run in runs if label(run) == name]) for name in names}


def usable(runs: Runs) -> dict[int, float]:
    """Seed -> the greatest rate at which it learns; 0 if there is none."""
    found: dict[int, float] = {}
    for run in runs:
        rate = float(run.asked("optimizer.lr") or 0)
        learns = run.number("accuracy/test") >= USABLE
        found[run.seed] = max(found.get(run.seed, 0.0), rate if learns else 0.0)
    return found


def times(rate: float, other: float) -> float:
    """How many times as great; nothing is won if there is no usable rate either way."""
    return rate / other if other else math.inf if rate else 1.0


def largest_norm(run: Run) -> float:
    """The decimal logarithm of the largest norm of all gradients together, before clipping, on record."""
    steps = recorded(run)
    norms = [math.hypot(*step["grad_norm"]) for step in steps if None not in step["grad_norm"]]
    return math.log10(max(norms)) if norms else math.nan


def recorded(run: Run) -> list[dict[str, Any]]:
    """The recorded steps of a run: loss, and gradient norms of its layers."""
    if run.folder is None or not (run.folder / "records.jsonl").is_file():
        return []
    lines = (run.folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def mlp(runs: Runs, gain: str) -> Runs:
    return runs.part("gradient_clipping").of(f"initializer.gain={gain}")


@lab.claim(
    "3:349",
    "Clipping limits the gradients to a certain range.",
    measures="norm, or largest entry, after clipping against the threshold; cosine of before and after",
    criterion="excess <= 1e-6; by norm cosine = 1 within 1e-6, by value < 1 - 1e-6, at each threshold",
)
def limits(runs: Runs) -> Verdict:
    """By norm the step points where it did; by value, with these thresholds, it is turned by up to a right
    angle's half and more: nearly all entries end up as +v or -v.
    """
    found = {}
    for clip, own in runs.part("clipped").by("clip").items():
        found[f"{clip}: excess"] = identity(own.largest("excess"), 1e-6)
        if clip == "by_norm":
            off = own.largest(lambda run: abs(1 - run.number("cosine")))
            found[f"{clip}: 1 - cosine"] = identity(off, 1e-6)
        else:
            found[f"{clip}: cosine"] = at_most(own.largest("cosine"), 1 - 1e-6)
    return all_of(found)


@lab.claim(
    "3:349",
    "That prevents the gradients from becoming too large.",
    measures="decades from the largest gradient norm during training with clip=norm to that without, before"
    " clipping, at the same rate 0.1, in networks that explode",
    criterion=">= 1, for MLP and RNN",
)
def prevents(runs: Runs) -> Verdict:
    """The first gradient is the same to the last bit. It is the later ones, after a step too long, that
    clipping keeps from growing without end.
    """
    found = {}
    nets = {"MLP": mlp(runs, "2.1213"), "RNN": runs.part("gradient_clipping_rnn")}
    for name, own in nets.items():
        arms = by_clip(own.of("optimizer.lr=0.1"))
        free, tamed = (arms.get(clip, Runs([])).values(largest_norm) for clip in ("none", "norm 1"))
        found[name] = exceeds(free, tamed, by=1)
    return all_of(found)


@lab.claim(
    "3:349",
    "So greater learning rates can be used.",
    measures=f"greatest rate with test accuracy >= {USABLE}, 10 layers, with clipping against without",
    criterion=">= 3 times as great, for each way of clipping and each network",
)
def greater_rates(runs: Runs) -> Verdict:
    """That alone says little: a small c makes all steps short, so it moves the usable rates up and takes away
    as many below. What the next claim asks cannot be had by another rate.
    """
    found = {}
    for gain, network in NETWORKS.items():
        arms = by_clip(mlp(runs, gain))
        free = usable(arms.pop("none", Runs([])))
        for name, own in arms.items():
            ratios = {seed: times(rate, free.get(seed, 0.0)) for seed, rate in usable(own).items()}
            found[f"{name}, net {network}"] = at_least(ratios, 3)
    return over("clipping", found)


@lab.claim(
    "3:349",
    "Clipping makes a network learn that does not without.",
    measures="gain in test accuracy, 10 layers, the best way of clipping against none, each at its best rate",
    criterion=">= 0.05, for weights that keep the error and weights that explode",
)
def learns_better(runs: Runs) -> Verdict:
    """It repairs steps that are too long for a short time, so it helps where gradients explode, and has
    nothing to do where they do not.
    """
    found = {}
    for gain, network in NETWORKS.items():
        arms = by_clip(mlp(runs, gain).best())
        free = arms.pop("none", Runs([])).values("accuracy/test")
        best = max(arms.values(), key=mean_validation, default=Runs([]))
        gains = {seed: x - free.get(seed, math.nan) for seed, x in best.values("accuracy/test").items()}
        found[f"a net that {network}"] = changes(gains, 0.05)
    return over("network", found)


def mean_validation(runs: Runs) -> float:
    known = [x for x in runs.values("accuracy/validation").values() if math.isfinite(x)]
    return math.fsum(known) / len(known) if known else -math.inf


@lab.claim(
    "3:349",
    "Clipping keeps recurrent networks from diverging.",
    measures="share of the learning rates at which an RNN with weights of 1.5 / sqrt(H) ends in NaN",
    criterion="without - with >= 0.25, for each threshold",
)
def rnn_survives(runs: Runs) -> Verdict:
    """Not to diverge is not to learn: at rate 1 it does worse than saying 1 each time."""
    arms = by_clip(runs.part("gradient_clipping_rnn"))
    free = lost(arms.pop("none", Runs([])))
    return over("threshold", {name: exceeds(free, lost(own), by=0.25) for name, own in arms.items()})


def lost(runs: Runs) -> dict[int, float]:
    """Seed -> the share of its runs that diverged."""
    seeds = dict.fromkeys(run.seed for run in runs)
    own = {seed: [run.job.status == "diverged" for run in runs if run.seed == seed] for seed in seeds}
    return {seed: sum(ends) / len(ends) for seed, ends in own.items()}


@lab.picture(
    "Ten ReLU layers that multiply the error by 1.5 each. Left: test accuracy over learning rates, a dot for"
    " each seed; a run that diverged has none. Right: the norm of all gradients before clipping, rate 0.1,"
    " seed 0; both begin at the same number. Dotted: the threshold 1."
)
def picture(runs: Runs) -> Figure:
    figure, (left, right) = panels(2)
    left.set_xscale("log")
    right.set_xscale("symlog")
    right.set_yscale("log")
    ends, words = [], []
    for colour, (name, own) in zip(WORD_COLOURS, by_clip(mlp(runs, "2.1213")).items(), strict=False):
        found = {float(rate): arm for rate, arm in own.by("optimizer.lr").items()}
        known = {
            rate: [x for x in arm.values("accuracy/test").values() if math.isfinite(x)]
            for rate, arm in found.items()
        }
        centres = {rate: math.fsum(xs) / len(xs) for rate, xs in known.items() if xs}
        left.plot(list(centres), list(centres.values()), "-", color=colour, lw=1.4)
        for rate, xs in known.items():
            left.plot([rate] * len(xs), xs, "o", color=colour, ms=3, alpha=0.6)
        if centres:
            ends.append((list(centres.values())[-1], name, colour))
        if name in ("none", "norm 1"):
            steps = [s for r in found.get(0.1, Runs([])) if r.seed == 0 for s in recorded(r)]
            steps = [s for s in steps if None not in s["grad_norm"]]
            norms = [math.hypot(*step["grad_norm"]) for step in steps]
            right.plot([s["step"] for s in steps], norms, "o-", color=colour, ms=3, lw=1.4)
            words += [(norms[-1], name, colour)] if norms else []
    right.axhline(1, color=GREY, ls=":", lw=1)
    left.set_ylim(0, 1)
    say_y(left, "test accuracy", "of a net that explodes")
    left.set_xlabel("learning rate", color=GREY)
    beside(left, [(share(left, y), name, colour) for y, name, colour in ends])
    say_y(right, "gradient norm", "of all layers, before clipping")
    right.set_xlabel("step", color=GREY)
    beside(right, [(share(right, y), name, colour) for y, name, colour in words])
    return figure


if __name__ == "__main__":
    lab.main()

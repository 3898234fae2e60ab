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
    accuracy,
    all_of,
    at_least,
    at_most,
    exceeds,
    given,
    identity,
    over,
)
from dlexp.lab.draw import panels
from dlexp.plots.style import GREY, WORD_COLOURS, beside, say_y, share

lab = Experiment(
    __file__,
    __doc__,
    sweeps=["gradient_clipping", "gradient_clipping_rates", "gradient_clipping_rnn"],
    quick="seeds=1 arm='clip=none','clip=norm' optimizer.lr=0.1 train.max_steps=2",
)
USABLE = 0.8  # test accuracy at which a learning rate counts as usable


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


def exploding(runs: Runs) -> Runs:
    return runs.part("gradient_clipping")


@lab.claim(
    "3:349",
    "Clipping limits the gradients to a certain range.",
    measures="by how much the norm, or the largest entry, exceeds the threshold after clipping, as a share"
    " of it",
    criterion="at most 1e-6; control: before clipping the norm is at least the threshold",
)
def limits(runs: Runs) -> Verdict:
    found, controls = {}, {}
    for clip, own in runs.part("clipped").by("clip").items():
        found[clip] = identity(own.largest("excess"), 1e-6)
        least = {seed: -x for seed, x in own.largest(lambda run: -before(run)).items()}
        controls[f"{clip}, norm before over threshold"] = at_least(least, 1)
    return given(controls, all_of(found))


def before(run: Run) -> float:
    """The norm of the gradient before clipping, over the threshold."""
    return run.number("raw") / float(run.asked("threshold") or 1)


@lab.claim(
    "3:349",
    "Theory: clipping by norm keeps the direction of the gradient, clipping by value turns it.",
    measures="cosine of the gradient before and after clipping, of four thresholds the one furthest off",
    criterion="by norm 1 within 1e-6; by value < 1 - 1e-6 at each threshold",
)
def direction(runs: Runs) -> Verdict:
    """The larger an entry, the larger the share of it that clipping by value takes."""
    found = {}
    for clip, own in runs.part("clipped").by("clip").items():
        if clip == "by_norm":
            found["by norm, 1 - cosine"] = identity(own.largest(lambda run: 1 - run.number("cosine")), 1e-6)
        else:
            found["by value, cosine"] = at_most(own.largest("cosine"), 1 - 1e-6)
    return all_of(found)


@lab.claim(
    "3:349",
    "Clipping prevents the gradients from becoming too large.",
    measures="decimal logarithm of the largest gradient norm on record, before clipping: without clipping"
    " against clip=norm at 1, rate 0.1, networks that explode",
    criterion="1 more without, for MLP and RNN",
)
def prevents(runs: Runs) -> Verdict:
    """Not the first gradient, which is the same, but the later ones, after a step too long: clipping keeps
    those from growing without end.
    """
    found = {}
    nets = {"MLP": exploding(runs), "RNN": runs.part("gradient_clipping_rnn")}
    for name, own in nets.items():
        arms = by_clip(own.of("optimizer.lr=0.1"))
        free, tamed = (arms.get(clip, Runs([])).values(largest_norm) for clip in ("none", "norm 1"))
        found[name] = exceeds(free, tamed, by=1)
    return all_of(found)


@lab.claim(
    "3:349",
    "Clipping allows greater learning rates.",
    measures=f"greatest rate of 0.03 to 30 with test accuracy >= {USABLE}, with clipping divided by without;"
    " ten ReLU layers with He's weights",
    criterion="3 or more, for each way of clipping; control: a rate is usable without",
)
def greater_rates(runs: Runs) -> Verdict:
    """Where it acts at all: a threshold that gradients hardly meet changes nothing. That alone says little,
    for a small c makes all steps short, so it moves the usable rates up and takes away as many below.
    """
    arms = by_clip(runs.part("gradient_clipping_rates"))
    free = usable(arms.pop("none", Runs([])))
    found = {}
    for name, own in arms.items():
        ratios = {
            seed: rate / free[seed] if free.get(seed) else math.nan for seed, rate in usable(own).items()
        }
        found[name] = at_least(ratios, 3)
    return given({"rate without": at_least(free, 1e-9)}, over("way of clipping", found))


@lab.claim(
    "3:349",
    "Where gradients explode a network learns better with clipping.",
    measures="test accuracy, ten ReLU layers that multiply the error by 1.5 each, with clipping against"
    " without, each at its best rate",
    criterion="0.05 more, for each way of clipping",
)
def learns_better(runs: Runs) -> Verdict:
    """Clipping shortens the long steps and leaves the others as they are, which no other rate does."""
    arms = by_clip(exploding(runs).best())
    free = arms.pop("none", Runs([])).values(accuracy)
    found = {name: exceeds(own.values(accuracy), free, by=0.05) for name, own in arms.items()}
    return over("way of clipping", found)


@lab.claim(
    "3:349",
    "Clipping keeps recurrent networks from diverging.",
    measures="share of the learning rates 0.01 to 1 at which an RNN with weights of 1.5 / sqrt(H) diverges",
    criterion="0 with clipping, at each threshold; control: at least 0.3 without",
)
def rnn_survives(runs: Runs) -> Verdict:
    """Not to diverge is not yet to learn."""
    arms = by_clip(runs.part("gradient_clipping_rnn"))
    free = at_least(lost(arms.pop("none", Runs([]))), 0.3)
    found = {name: at_most(lost(own), 0) for name, own in arms.items()}
    return given({"without": free}, over("threshold", found))


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
    for colour, (name, own) in zip(WORD_COLOURS, by_clip(exploding(runs)).items(), strict=False):
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

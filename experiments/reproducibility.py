"""Run it twice: is the result the same?

Chance comes in where weights are drawn, where samples are shuffled, and where units are dropped. A generator
makes all of it from one number, the seed; but each library has one of its own, and a seed helps that one.

What is left is rounding: in floating point a + (b + c) is not (a + b) + c, so where sums are taken in another
order, by more threads say, the last bit differs,

    2^-24 = 6e-8 of a number in float32

and training may take that to any size. Whether it does is a question of stability: near a minimum an update
multiplies a difference by 1 - rate * curvature, which shrinks it as long as rate < 2 / curvature.
"""

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dlexp.lab import Experiment, Runs, Verdict, at_least, at_most, over
from dlexp.lab.verdict import spread_of
from dlexp.plots.style import BLACK, GREY, WORD_COLOURS, beside, inches, say_y, share

lab = Experiment(__file__, __doc__, quick="seeds=1 rate=0.1,1 steps=30 change=nothing train.max_steps=5")
SEEDED = ("nothing", "random", "numpy", "torch")


def digits() -> tuple[Any, Any, Any, Any]:
    """Pixels from -1 to 1 and labels: 1400 to learn from, the others to test on."""
    from dlexp.data.digits import read

    every = read()
    inputs, labels = every.inputs.flatten(1) / 8 - 1, every.targets
    return inputs[:1400], labels[:1400], inputs[1400:], labels[1400:]


def network(width: int = 64) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def train(net: Any, batches: Any, rate: float = 0.1) -> Any:
    """Gradient descent over the batches; returns all weights in a row."""
    import torch

    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach()


def shuffled(steps: int, size: int = 64) -> Any:
    """So many batches, drawn with PyTorch's own generator."""
    import torch

    x, y, *_ = digits()
    for _ in range(steps):
        rows = torch.randint(len(x), (size,))
        yield x[rows], y[rows]


def forget() -> None:
    """Let each generator be as in a process that has just begun: seeded by the operating system."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()  # noqa: NPY002 - the generator that all of NumPy shares
    torch.seed()


def seed_only(library: str, seed: int) -> None:
    import random

    import numpy as np
    import torch

    forget()
    seeders = {"random": random.seed, "numpy": np.random.seed, "torch": torch.manual_seed}
    if library in seeders:
        seeders[library](seed)


def compared(one: Any, other: Any) -> dict[str, float]:
    """Are all bits equal, and how far are two rows of weights apart, relative to their length?"""
    return {"equal": float((one == other).all()), "apart": float((one - other).norm() / one.norm())}


@lab.measure(library=list(SEEDED), of=["random", "numpy", "torch"], seeds=5)
def values(seed: int, library: str, of: str) -> dict[str, float]:
    """Of 1000 numbers of one library, after seeding another, the share that comes again the second time."""
    import random

    import numpy as np
    import torch

    draw = {"random": random.random, "numpy": np.random.random, "torch": lambda: torch.rand(()).item()}[of]
    drawn = []
    for _ in range(2):
        seed_only(library, seed)
        drawn.append([draw() for _ in range(1000)])
    return {"again": sum(a == b for a, b in zip(*drawn, strict=True)) / 1000}


@lab.measure(library=list(SEEDED), steps=300, seeds=5)
def twice(seed: int, library: str, steps: int) -> dict[str, float]:
    """The same network trained twice, with only that library seeded."""
    found = []
    for _ in range(2):
        seed_only(library, seed)
        found.append(train(network(), shuffled(steps)))
    return compared(*found)


@lab.measure(
    change=["nothing", "another process", "order in the batch", "two threads", "two loader workers"],
    steps=300,
    seeds=3,
)
def again(seed: int, change: str, steps: int) -> dict[str, float]:
    """PyTorch seeded both times, and one thing changed the second time."""
    import torch

    first = run(seed, steps, change, changed=False)
    if change == "another process":
        return compared(first, elsewhere(seed, steps))
    if change == "two threads":
        torch.set_num_threads(2)
    return compared(first, run(seed, steps, change, changed=True))


def run(seed: int, steps: int, change: str, *, changed: bool) -> Any:
    """Wide enough that two threads share the work, where it is about threads."""
    import torch

    torch.manual_seed(seed)
    if change == "two threads":
        return train(network(512), shuffled(steps // 10, size=512))
    if change == "two loader workers":
        return train(network(), Noisy.batches(steps, workers=2 if changed else 0))
    if change == "order in the batch" and changed:
        return train(network(), ((x.flip(0), y.flip(0)) for x, y in shuffled(steps)))
    return train(network(), shuffled(steps))


class Noisy:
    """Digits with noise that is drawn as each is asked for, which workers do with generators of their own."""

    def __init__(self) -> None:
        self.x, self.y, *_ = digits()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        import torch

        return self.x[i] + 0.1 * torch.randn(64), self.y[i]

    @classmethod
    def batches(cls, steps: int, workers: int) -> Any:
        from torch.utils.data import DataLoader

        epochs = math.ceil(steps / 21)  # 1400 // 64 batches in each
        for _ in range(epochs):
            yield from DataLoader(cls(), batch_size=64, shuffle=True, num_workers=workers, drop_last=True)


def elsewhere(seed: int, steps: int) -> Any:
    """The same training in a process of its own."""
    import subprocess
    import sys

    import torch

    script = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from reproducibility import run
torch.set_num_threads(1)
print(*run({seed}, {steps}, "nothing", changed=False).tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return torch.tensor([float(text) for text in done.stdout.split()])


@lab.measure(rate=[0.03, 0.1, 0.3, 1.0], steps=2000, seeds=5)
def grows(seed: int, rate: float, steps: int) -> dict[str, Any]:
    """Two networks that differ by a rounding, 1e-7 of each weight, on the same batches: how far later?"""
    import torch

    torch.manual_seed(seed)
    one, other, third = network(), network(), network()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter *= 1 + 1.2e-7 * (2 * torch.rand_like(parameter) - 1).sign()
    batches, curve, at, done = list(shuffled(steps)), [], [], 0
    marks = sorted({min(steps, round(10 ** (i / 8))) for i in range(60)})
    for mark in marks:
        own = batches[done:mark]
        curve.append(compared(train(one, own, rate), train(other, own, rate))["apart"])
        at.append(mark)
        done = mark
    x = digits()[2]
    with torch.no_grad():
        same = (one(x).argmax(1) == other(x).argmax(1)).float().mean()
    whole = torch.nn.utils.parameters_to_vector
    of_another_seed = compared(whole(one.parameters()).detach(), train(third, batches, rate))["apart"]
    return {
        "apart": curve[-1],
        "same_answers": float(same),
        "another_seed": of_another_seed,
        "curve": curve,
        "at": at,
    }


@lab.claim(
    "2:91",
    "A network that is run twice gives the same results (the notes leave it open).",
    measures="share of runs whose weights after 300 steps are equal to the last bit to those of a second run,"
    " by the one library that is seeded both times",
    criterion="all of them, whichever is seeded",
)
def same_twice(runs: Runs) -> Verdict:
    """It takes the seed of the library that draws. Without it the weights end as far apart as those of
    any two networks, sqrt(2) times their length.
    """
    arms = runs.part("twice").by("library").items()
    found = {word: at_least(own.values("equal"), 1) for word, own in arms}
    apart = [x for word, own in arms if word != "torch" for x in own.values("apart").values()]
    said = f"without torch's seed apart by {spread_of(apart)} of the weights' length; equal"
    return over("library seeded", found).says(said)


@lab.claim(
    "2:47-48",
    "After random.seed(0) the same random values can be drawn again.",
    measures="of 1000 numbers of a library the share that comes again after random.seed, by library",
    criterion="all of them, of each library",
)
def random_seed(runs: Runs) -> Verdict:
    """Those of Python's own generator, that is. NumPy and PyTorch have theirs, and never ask it."""
    arms = runs.part("values").of("library=random").by("of").items()
    return over("library", {word: at_least(own.values("again"), 1) for word, own in arms})


@lab.claim(
    "2:91",
    "With PyTorch's seed fixed a second run gives the same results, whatever else is different.",
    measures="distance of the weights from those of a second run, relative to their length, with one thing"
    " changed; 300 steps, or 30 of a wide network for threads",
    criterion="0: equal to the last bit, whatever is changed",
)
def whatever_else(runs: Runs) -> Verdict:
    """A new process does not matter. What changes the order of sums does, in the last bit to begin with;
    workers that draw by themselves draw other numbers altogether. Another processor may add up in another
    order, too.
    """
    arms = runs.part("again").by("change").items()
    return over("what is changed", {change: at_most(own.values("apart"), 0) for change, own in arms})


@lab.claim(
    "2:91",
    "A difference in the last bit of the weights stays small in training: results are as good as the same.",
    measures="distance of the weights of two networks after 2000 steps of SGD, relative to their length, that"
    " began 1.2e-7 apart; share of test samples that both answer alike",
    criterion="at most 1e-3 at each learning rate",
)
def stays_small(runs: Runs) -> Verdict:
    """As long as steps are stable. Past the largest rate at which they are each step makes a difference
    larger, until the two are about as far apart as networks of two seeds. At small rates, too, it grows, by
    jumps: where a ReLU is on in one network and off in the other.
    """
    arms = runs.part("grows").by("rate").items()
    found = {rate: at_most(own.values("apart"), 1e-3) for rate, own in arms}
    same = ", ".join(f"{spread_of(own.values('same_answers').values())} at {rate}" for rate, own in arms)
    return over("learning rate", found).says(f"alike {same}; distance")


@lab.claim(
    "2:91",
    "Another seed gives a network that is as good.",
    measures="how far the test accuracy of each of ten seeds is from their mean, in standard errors of the"
    " test set, sqrt(p (1 - p) / 270), by how many samples they were trained on",
    criterion="at most 2: this test set cannot tell it from the others",
)
def as_good(runs: Runs) -> Verdict:
    """A hundredth, the first criterion, lies in the middle of the spread, so that it decides nothing. What
    two runs differ by is no finding before it exceeds this spread: hence several seeds for each arm.
    """
    found = {}
    for arm in runs.part("reproducibility").arms():
        accuracy, samples = arm.values("accuracy/test"), arm.words.get("data.labels", "1257")
        mean = sum(accuracy.values()) / len(accuracy)
        error = math.sqrt(mean * (1 - mean) / 270) or math.nan
        verdict = at_most({seed: abs(x - mean) / error for seed, x in accuracy.items()}, 2)
        found[samples] = verdict.says(f"accuracy {spread_of(accuracy.values())}, off by")
    return over("training samples", found)


@lab.picture(
    "How far two networks are apart that began with a rounding of difference, at four learning rates; a line"
    " for each of five seeds. Dotted: the rounding, and two networks of different seeds."
)
def picture(runs: Runs) -> Figure:
    figure = Figure(figsize=(8.5, 4.2))
    inches(figure, left=0.7, right=1.2, top=0.75, bottom=0.55)
    axis = figure.add_subplot()
    ends, others = [], []
    for colour, (rate, own) in zip(WORD_COLOURS, runs.part("grows").by("rate").items(), strict=False):
        last = []
        for run in own:
            found = dict(run.measured or {})
            if found:
                axis.plot(found["at"], found["curve"], "-", color=colour, lw=1.2, alpha=0.8)
                others.append(found["another_seed"])
                last.append(found["apart"])
        ends += [(sorted(last)[len(last) // 2], f"rate {rate}", colour)] if last else []
    for height, label in ((1.2e-7, "the rounding"), (max(others, default=1.4), "another seed")):
        axis.axhline(height, color=BLACK, ls=":", lw=1)
        axis.annotate(label, (1, height), (2, 4), textcoords="offset points", color=GREY, fontsize=9)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("step", color=GREY)
    say_y(axis, "distance of the weights", "relative to their length")
    beside(axis, [(share(axis, end), label, colour) for end, label, colour in ends])
    return figure


if __name__ == "__main__":
    lab.main()

"""How often is the diagnosis right, silent where nothing is wrong, and its first word a cure?

    python tests/benchmarks/diagnosis.py tune          # or held_out, or both
    python tests/benchmarks/diagnosis.py tune --details

Each configuration of diagnosis_suite.yaml is trained with some seeds, diagnosed, and, where a fault is built
in, trained once more at the same seed with the first override. A cure counts only if the loss, the metric and
the symptom improve. Beside it stand overrides drawn at random, the rules without each one of them, and what
others have published, as plain formulas on the same records. Runs are kept under outputs/diagnosis, named by
their words, and not repeated; take that folder away when the record has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

HERE = Path(__file__).parent
SUITE = HERE / "diagnosis_suite.yaml"
BASE = ["train.max_steps=600", "device=cpu", "threads=1", "record.tensorboard=false"]
KEPT = Path("outputs/diagnosis")
ACCURACY, ERROR = "accuracy/test", "rmse/test"


class Case(NamedTuple):
    """A configuration and what is right to say of it."""

    id: str
    half: str
    truth: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return self.truth == ("healthy",)


@cache
def suite() -> list[Case]:
    """All of diagnosis_suite.yaml."""
    from dlexp.diagnose.remedies import applied

    return [
        Case(one["id"], one["half"], tuple(one["truth"]), tuple(applied(BASE, one["words"].split())))
        for one in yaml.safe_load(SUITE.read_text(encoding="utf-8"))
    ]


# -- runs ---------------------------------------------------------------------------------------------------


def folder_of(words: Sequence[str], seed: int) -> Path:
    name = hashlib.sha256(" ".join([*words, str(seed)]).encode()).hexdigest()[:16]
    return (KEPT / name).resolve()


def train(job: tuple[tuple[str, ...], int]) -> str | None:
    """Make the run, unless it is there; what refused it, or None."""
    import dlexp
    from dlexp.errors import UserError

    words, seed = job
    folder = folder_of(words, seed)
    if (folder / "summary.json").exists() or (folder / "refused").exists():
        return None
    sys.path.insert(0, str(HERE))
    try:
        dlexp.run([*words, f"seed={seed}", f"hydra.run.dir='{folder}'"], quiet=True)
    except UserError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "refused").write_text(str(error))
        return f"{' '.join(words)}: {error}"
    except Exception as error:  # a run that failed is a result, too
        return f"{' '.join(words)}: {type(error).__name__}: {error}"
    return None


def train_all(jobs: Iterable[tuple[tuple[str, ...], int]], processes: int) -> None:
    """All that are not there yet."""
    missing = [job for job in dict.fromkeys(jobs) if not (folder_of(*job) / "summary.json").exists()]
    if not missing:
        return
    if processes == 1:
        said = [train(job) for job in missing]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            said = pool.map(train, missing, chunksize=4)
    for line in filter(None, said):
        print(f"  refused or failed: {line}", file=sys.stderr)


def evidence(words: Sequence[str], seed: int) -> Any:
    from dlexp.diagnose.evidence import Evidence

    return Evidence.of_run(folder_of(words, seed))


def accuracies(words: Sequence[str], seed: int) -> np.ndarray:
    """accuracy/validation of all evaluations; empty of a run that has none."""
    from dlexp.folder import METRICS
    from dlexp.written import read_lines

    lines = read_lines(folder_of(words, seed) / METRICS)
    found = [line.get("accuracy/validation") for line in lines if "loss/validation" in line]
    return np.array([x for x in found if x is not None], dtype=float)


def summary(words: Sequence[str], seed: int) -> dict[str, Any] | None:
    path = folder_of(words, seed) / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


# -- is it a cure? ------------------------------------------------------------------------------------------


def score(found: dict[str, Any]) -> tuple[float, float]:
    """The loss and how good the answers are, on the test split; of a run that diverged nothing is worse."""
    metrics = found["metrics"]
    loss = metrics.get("loss/test")
    if found["status"] not in ("finished", "stopped_early") or loss is None:
        return math.inf, -math.inf
    if metrics.get(ACCURACY) is not None:
        return loss, metrics[ACCURACY]
    return loss, -(metrics.get(ERROR) or math.inf)


def cured(before: dict[str, Any], after: dict[str, Any] | None, was: Any, now: Any) -> bool:
    """As `dlexp doctor --fix` judges, but on the test split."""
    from dlexp.diagnose.cure import improvements

    if after is None:
        return False
    known = [
        name.partition("/")[0]
        for name in (ACCURACY, ERROR)
        for own in (before, after)
        if name in own["metrics"]
    ]
    metric = next(iter(known), None)
    return all(improvements(before, after, was, now, metric, splits=("test",)).values())


RANDOM = (
    *("optimizer.lr=0.001", "optimizer.lr=0.01", "optimizer.lr=0.1", "optimizer.lr=1", "optimizer=adam"),
    *("initializer=kaiming_normal", "initializer=xavier_normal", "initializer=orthogonal"),
    *("activation=relu", "activation=leaky_relu", "activation=tanh", "activation=gelu"),
    *("normalization=batch", "normalization=layer", "dropout=standard", "regularizer=l2", "clip=norm"),
    *("scheduler=cosine", "scheduler=warmup", "stopping=early", "data.standardize=feature"),
    *("train.batch_size=256", "train.batch_size=16", "model.width=128", "model.depth=2"),
)


def random_override(case: Case, seed: int) -> list[str]:
    """One that this run can be made with; which, is drawn anew for each."""
    from dlexp import compose
    from dlexp.diagnose.remedies import applied
    from dlexp.errors import UserError

    generator = random.Random(f"{case.id} {seed}")
    for word in generator.sample(RANDOM, len(RANDOM)):
        words = tuple(applied(case.words, [word]))
        try:
            compose.compose([*words, f"seed={seed}"])
        except UserError:
            continue
        if word not in case.words and train((words, seed)) is None and summary(words, seed):
            return [word]
    raise AssertionError(case.id)


# -- what others have published -----------------------------------------------------------------------------

Rule = Callable[[Any, np.ndarray], str]  # evidence and accuracies on validation -> a label


def last(e: Any, quantity: str) -> np.ndarray:
    rows = e.of(quantity)
    return rows[-1] if len(rows) else np.full(len(e.hidden), np.nan)


def gradient_share(e: Any) -> np.ndarray:
    """(n, l): mean size of a gradient's entries, from its norm and the number of entries."""
    sizes = np.array([math.prod(e.shapes[i]) + e.shapes[i][0] for i in e.hidden], dtype=float)
    return e.of("grad_norm") / np.sqrt(sizes)


def accuracy(e: Any) -> float | None:
    return e.metrics.get("accuracy/train")


def autotrainer(e: Any, curve: np.ndarray) -> str:
    """Zhang et al. 2021: R = ||g first|| / ||g last||; vanishing, exploding, dying, unstable, slow."""
    if not e.finite.all() or e.status == "diverged":
        return "exploding"
    g = e.of("grad_norm")
    every = e.of("grad_norm", np.flatnonzero(e.weighted))
    with np.errstate(all="ignore"):
        r = every[:, 0] / every[:, -1]
    if len(g) and ((r < 1e-3) & (every[:, 0] < 1e-4)).any():
        return "vanishing"
    if (r > 70).any():
        return "exploding"
    if np.nan_to_num(e.of("zero_grad_fraction")).mean(axis=1).max(initial=0) >= 0.7:
        return "dead_units"
    return curve_rules(curve)


def curve_rules(curve: np.ndarray) -> str:
    """Its two rules on accuracy, over evaluations instead of epochs; of runs without one they say nothing.

    A best gain below 0.01 is slow, falls of 0.03 and more in a fifth of them are unstable.
    """
    if len(curve) < 3:
        return "healthy"
    changes = np.diff(curve)
    if (changes <= -0.03).mean() >= 0.2:
        return "unstable_loss"
    return "lr_too_low" if changes.max() < 0.01 else "healthy"


def gated(rules: Rule, threshold: float = 0.6) -> Rule:
    """Only where accuracy is below a threshold."""

    def rule(e: Any, curve: np.ndarray) -> str:
        reached = accuracy(e)
        return "healthy" if reached is not None and reached >= threshold else rules(e, curve)

    return rule


def deepdiagnosis(e: Any, _: np.ndarray) -> str:
    """Wardat et al. 2022: mean |g| < 1e-7, 70 % of outputs 0, half of z beyond 5, learning rate.

    Left out: inputs outside [-1, 1], as no run records its extremes (inputs of deviation 1 would set it off
    nearly always, and no network be healthy), and an accuracy that is flat over 20 epochs, as most runs here
    have fewer.
    """
    if not e.finite.all() or e.status == "diverged":
        return "non_finite"
    rows = e.of("dead_fraction")
    if np.nan_to_num(last(e, "saturated_fraction")).max(initial=0) > 0.5:
        return "saturated"
    slope = e.look("slope_mean", "last")
    relu = np.array([name == "ReLU" for name in e.activations])[e.hidden]
    if len(rows) and (relu & (slope <= 0.3)).any():
        return "dead_units"
    g = gradient_share(e)
    if len(g) and np.nanmin(g, initial=np.inf) < 1e-7:
        return "vanishing"
    u = e.of("update_ratio")
    middle = np.nanmedian(u) if np.isfinite(u).any() else 1e-3
    if middle > 0.1:
        return "lr_too_high"
    return "lr_too_low" if middle < 1e-5 else "healthy"


def sagemaker(e: Any, _: np.ndarray) -> str:
    """Amazon's built-in rules at their defaults: mean |g| < 1e-7, dead ReLU, saturation, updates, loss."""
    if not e.finite.all() or e.status == "diverged":
        return "exploding"
    g = gradient_share(e)
    if len(g) and np.nanmin(g, initial=np.inf) < 1e-7:
        return "vanishing"
    if np.nan_to_num(last(e, "dead_fraction")).max(initial=0) > 0.5:
        return "dead_units"
    if np.nan_to_num(last(e, "saturated_fraction")).max(initial=0) > 0.5:
        return "saturated"
    norms = e.of("weight_norm")[:1] ** 2 if len(e.hidden) else np.zeros((0, 0))
    if norms.size:
        sizes = np.array([math.prod(e.shapes[i]) for i in e.hidden], dtype=float)
        variances = norms[0] / sizes
        if variances.min() <= 0 or variances.max() / variances.min() > 10:
            return "bad_init_scale"
    u = e.of("update_ratio")
    if np.isfinite(u).any() and (np.nanmax(u) > 10 or np.nanmin(u) < 1e-8):
        return "lr_too_high" if np.nanmax(u) > 10 else "lr_too_low"
    train = e.metrics.get("loss/train")
    curve = e.validation[np.isfinite(e.validation)]
    if train is not None and len(curve) and train > 0 and (curve[-1] - train) / train > 0.1:
        return "overfit"
    half = e.loss[len(e.loss) // 2 :]
    return "not_learning" if len(half) > 1 and half.min() > 0.999 * half[0] else "healthy"


PUBLISHED = {
    "AUTOTRAINER's": autotrainer,
    "AUTOTRAINER's, accuracy < 0.6": gated(autotrainer),
    "DeepDiagnosis's": deepdiagnosis,
    "SageMaker's": sagemaker,
}


# -- the table ----------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """One run and what was said of it."""

    case: Case
    seed: int
    primary: str
    severity: str = "none"

    @property
    def right(self) -> bool:
        return self.primary in self.case.truth


def rates(told: Sequence[Told]) -> str:
    """Right primary labels of faulty runs, silence and critical alarms of healthy ones."""
    faulty, healthy = [t for t in told if not t.case.healthy], [t for t in told if t.case.healthy]
    alarms = sum(t.severity == "critical" for t in healthy)
    right, silent = sum(t.right for t in faulty), sum(t.primary == "healthy" for t in healthy)
    return (
        f"{right:>4}/{len(faulty)} = {right / len(faulty):4.0%}   {silent:>4}/{len(healthy)} ="
        f" {silent / len(healthy):4.0%}   {alarms:>3}"
    )


def report(half: str, seeds: Sequence[int], processes: int, details: bool, cures: bool) -> None:
    """Train what is missing and print the table of one half."""
    from dlexp.diagnose.order import ORDER, diagnose
    from dlexp.diagnose.remedies import applied

    cases = [case for case in suite() if case.half == half]
    pairs = [(case, seed) for case in cases for seed in seeds]
    train_all(((case.words, seed) for case, seed in pairs), processes)
    read = {(case.id, seed): evidence(case.words, seed) for case, seed in pairs}
    curves = {(case.id, seed): accuracies(case.words, seed) for case, seed in pairs}
    said = {(case.id, seed): diagnose(read[case.id, seed]) for case, seed in pairs}
    told = [Told(c, s, said[c.id, s].primary, said[c.id, s].severity) for c, s in pairs]
    print(f"\n{half}: {len(cases)} configurations x {len(seeds)} seeds")
    print(f"  {'':<34} right primary label    healthy silence     critical alarms on healthy")
    print(f"  {'dlexp':<34} {rates(told)}")
    for name, rule in PUBLISHED.items():
        print(f"  {name:<34} {rates([Told(c, s, rule(read[c.id, s], curves[c.id, s])) for c, s in pairs])}")
    for off in ORDER:
        order = [rule for rule in ORDER if rule is not off]
        fewer = [(c, s, diagnose(read[c.id, s], order)) for c, s in pairs]
        line = rates([Told(c, s, d.primary, d.severity) for c, s, d in fewer])
        print(f"  {'dlexp without ' + off.__name__:<34} {line}")
    if details:
        show(pairs, said, read)
    if not cures:
        return
    faulty = [(case, seed) for case, seed in pairs if not case.healthy]
    fixes = {(c.id, s): said[c.id, s].override for c, s in faulty}
    wanted = [(tuple(applied(c.words, fixes[c.id, s])), s) for c, s in faulty if fixes[c.id, s]]
    train_all(wanted, processes)
    fixed = compare(faulty, said, fixes)
    drawn = {(c.id, s): random_override(c, s) for c, s in faulty}
    by_chance = compare(faulty, said, drawn)
    n = len(faulty)
    print(f"  first override cures   {sum(fixed.values()):>4}/{n} = {sum(fixed.values()) / n:4.0%}")
    print(f"  a random override      {sum(by_chance.values()):>4}/{n} = {sum(by_chance.values()) / n:4.0%}")
    if details:
        for (case, seed), ok in zip(faulty, fixed.values(), strict=True):
            if not ok:
                after = tuple(applied(case.words, fixes[case.id, seed]))
                one, two = summary(case.words, seed), summary(after, seed)
                now = diagnose(evidence(after, seed)).primary if two else "-"
                was, words = said[case.id, seed].primary, " ".join(fixes[case.id, seed])
                numbers = f"{one and score(one)} -> {two and score(two)}"
                print(f"    no cure: {case.id} seed {seed} {was}: {words} -> {now}; {numbers}")


def compare(
    faulty: Sequence[tuple[Case, int]],
    said: dict[tuple[str, int], Any],
    words: dict[tuple[str, int], list[str]],
) -> dict[tuple[str, int], bool]:
    """Which runs are cured by these words."""
    from dlexp.diagnose.order import diagnose
    from dlexp.diagnose.remedies import applied

    found: dict[tuple[str, int], bool] = {}
    for case, seed in faulty:
        override = words[case.id, seed]
        after = tuple(applied(case.words, override))
        one, two = summary(case.words, seed), summary(after, seed)
        if not override or one is None or two is None:
            found[case.id, seed] = False
            continue
        found[case.id, seed] = cured(one, two, said[case.id, seed], diagnose(evidence(after, seed)))
    return found


def show(pairs: Sequence[tuple[Case, int]], said: dict[tuple[str, int], Any], read: dict[Any, Any]) -> None:
    """Every run whose label is wrong, and one line a configuration."""
    for case in dict.fromkeys(case for case, _ in pairs):
        seeds = [seed for other, seed in pairs if other == case]
        found = [said[case.id, seed] for seed in seeds]
        progress = [read[case.id, seed].progress for seed in seeds]
        mark = "  " if all(one.primary in case.truth for one in found) else "!!"
        middle = statistics.median(-9 if p is None or p == -math.inf else p for p in progress)
        values = ", ".join(
            f"{one.primary}" + (f" {one.confidence:.2f}" if one.confidence else "") for one in found
        )
        print(f"  {mark} {case.id:<4} {'/'.join(case.truth):<26} progress {middle:5.2f}  {values}")
        if mark == "!!":
            for one in found:
                if one.primary not in case.truth:
                    print(f"          {one.sentence} | {[f['id'] for f in one.folded]}")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("half", choices=("tune", "held_out", "both"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--details", action="store_true", help="every configuration")
    parser.add_argument("--no-cures", action="store_true", help="only what needs no second run")
    asked = parser.parse_args()
    for half in ("tune", "held_out") if asked.half == "both" else (asked.half,):
        report(half, range(asked.seeds), asked.jobs, asked.details, not asked.no_cures)


if __name__ == "__main__":
    main()

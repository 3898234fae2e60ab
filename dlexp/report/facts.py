"""What a report says, as plain data: the page is made of it, and `dlexp report PATH --json` prints it.

Everything in it can be written as JSON: a number that is absent or not finite is None.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlexp import diagnose
from dlexp.folder import OVERRIDES, PLAN, SPLITS, SUMMARY, read_json
from dlexp.numbers import compact
from dlexp.profile import QUANTITY as PROFILE
from dlexp.profile import factor, hidden_and_outputs, profile
from dlexp.report.jobs import Job
from dlexp.report.load import Run
from dlexp.report.sweep import Arm, Sweep
from dlexp.theory import slopes
from dlexp.words import split_words, value
from dlexp.written import read_summary

SHOWN_OF_LAYERS = ("name", "path", "kind", "shape", "parameters", "is_cell", "first", "last", "reasons")
NOTABLE = 100.0  # fold: what a network of a few layers does not do by chance
OPTIONAL = ("activation", "normalization", "dropout")
MOST_CELLS = 4  # that the story tells of


def of_run(folder: Path) -> dict[str, Any]:
    """A run, finished or not: kind, folder, status, reason, command, words, choices, metrics, layers, ..."""
    run = Run(folder)
    summary = summary_of(run)
    words = summary.get("overrides") or []
    job = Job(folder.name, split_words(words), summary)
    layers = summary.get("layers") or []
    found: dict[str, Any] = clean(
        {
            "kind": "run",
            "folder": str(run.folder),
            "status": summary["status"],
            "reason": job.error,
            "command": command_line(words) if _was_typed(run, summary) else None,
            "words": words,
            "network": summary.get("network"),
            "script": summary.get("script"),
            "choices": summary.get("choices"),
            "seed": job.seed,
            "steps": summary.get("steps"),
            "restored_step": summary.get("restored_step"),
            "judged_by": job.metrics[0] if job.metrics else "loss",
            "metrics": summary.get("metrics") or {},
            "recorded": summary.get("recorded") or {"first": None, "last": None},
            "delta_factor": {end: factor(profile(layers, end)) for end in ("first", "last")},
            "signal": signal(run, layers),
            "over_time": through_time(run, layers),
            "diverged": summary.get("diverged"),
            "diagnosis": summary.get("diagnosis") or diagnose.of_run(run.folder).as_dict(),
            "growth": growth(run) if summary.get("diverged") else None,
            "used": _used(summary, words),
            "layers": [{name: layer.get(name) for name in SHOWN_OF_LAYERS} for layer in layers],
            "errors": summary.get("errors"),
            "confusion": summary.get("confusion"),
            "classes": (summary.get("facts") or {}).get("classes"),
            "theory": {name: factor for name, (factor, _) in theory(run).items()},
            "gaps": summary.get("gaps"),
            "timing": summary.get("timing"),
            "device": summary.get("device"),
            "versions": summary.get("versions"),
            "config": summary.get("config"),
        }
    )
    return found


def signal(run: Run, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What becomes of `delta_rms` on its way back through the hidden layers, and since when.

    It vanishes or explodes where less than a hundredth of it, or more than a hundredfold, arrives; it is
    absent where it is exactly 0 in all hidden layers.

    Returns:
        `becomes` "vanishes", "explodes", "arrives" or "absent"; `total` the factor from the last hidden layer
        to the first at the last recorded step with numbers, which is `at`; `since` the recorded step from
        which on it has been so; `zeros` the hidden layers in which it is exactly 0. None where it is not
        known.
    """
    hidden, _ = hidden_and_outputs(layers)
    places = [i for i, layer in enumerate(layers) if any(layer is own for own in hidden)]
    found: list[tuple[int, str, float | None]] = []
    zeros: list[str] = []
    for line in run.lines[1:]:
        deltas = line.get(PROFILE) or []
        own = [deltas[i] for i in places if i < len(deltas)]
        if own and all(x == 0 for x in own):
            found.append((line["step"], "absent", None))
        elif len(own) > 1 and own[0] is not None and own[-1]:
            found.append((line["step"], _becomes(own[0] / own[-1]), own[0] / own[-1]))
        else:
            continue
        zeros = [str(layer.get("name")) for layer, x in zip(hidden, own, strict=False) if x == 0]
    if not found:
        return None
    at, becomes, total = found[-1]
    same = next((n for n, (_, word, _) in enumerate(reversed(found)) if word != becomes), len(found))
    since = found[len(found) - same][0]
    return {"becomes": becomes, "total": total, "since": since, "at": at, "zeros": zeros}


def _becomes(total: float) -> str:
    return "vanishes" if total < 1 / NOTABLE else "explodes" if total > NOTABLE else "arrives"


def through_time(run: Run, layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What becomes of the error on its way back through the time steps of each recurrent layer.

    Of the last recorded step: `layer`, `quantity` (of an LSTM also that of its cell state), how many `steps`,
    the `total` factor from the last time step to the first, `factor` for each step between, and from which
    time step on anything arrives, `reaches`.
    """
    cells = [layer.get("name") for layer in layers if layer.get("is_cell") in (True, None)]
    found = []
    for line in reversed(run.lines[1:]):
        for quantity in (PROFILE, f"cell_{PROFILE}"):
            for layer, series in ((line.get("over_time") or {}).get(quantity) or {}).items():
                # Of a cell state nothing is known at the last time step: nobody reads it there.
                known = [(t, x) for t, x in enumerate(series) if x is not None]
                if layer not in cells or len(known) < 2 or not known[-1][1]:
                    continue
                (first, x), (last, y) = known[0], known[-1]
                found.append(
                    {
                        "layer": layer,
                        "quantity": quantity,
                        "steps": len(series),
                        "total": x / y,
                        "factor": (x / y) ** (1 / (last - first)),
                        "reaches": next(t for t, x in known if x),
                    }
                )
        if found:
            break
    return found


def story(facts: Mapping[str, Any]) -> list[str]:
    """What became of the signal, in sentences: where it broke, over depth, over time."""
    said = [_where_it_broke(facts), _over_depth(facts["signal"], facts["status"]), _over_time(facts)]
    return [sentence for sentence in said if sentence]


def _where_it_broke(facts: Mapping[str, Any]) -> str | None:
    """Of a run that diverged: when, where, on which way, and how fast it grew."""
    broke = facts["diverged"]
    if not broke:
        return None
    step, layer, reason = broke.get("step"), broke.get("layer"), str(broke.get("reason"))
    grew = facts["growth"]
    before = ""
    if grew and grew["last_step"] != grew["first_step"]:
        before = (
            f" The largest activation_rms of a layer went from {compact(grew['first'])} at step"
            f" {grew['first_step']} to {compact(grew['last'])} at step {grew['last_step']}."
        )
    name, _, rest = reason.removeprefix("its ").partition(" ")
    if layer is None or rest != "is not finite":
        where = f"{layer}: " if layer else ""
        return f"The loss is not finite at step {step}: {where}{reason}.{before}"
    if name in ("activation_rms", "weight_norm"):
        way = f"The signal breaks on its way forward at step {step}: {layer} is the first layer"
    else:
        way = f"The signal breaks on its way back at step {step}: {layer} is the first layer from the outputs"
    return f"{way} whose {name} is not finite.{before}"


def forward_broke(facts: Mapping[str, Any]) -> bool:
    """Whether a run diverged in its forward pass, so that activations tell the story, not errors."""
    reason = str((facts["diverged"] or {}).get("reason"))
    return any(name in reason for name in ("activation_rms", "weight_norm", "too large", "last update"))


def _over_depth(found: Mapping[str, Any] | None, status: str) -> str | None:
    if found is None:
        return None
    since = "from the start on" if not found["since"] else f"from step {found['since']} on"
    if found["becomes"] == "absent":
        zeros = found["zeros"]
        where = zeros[0] if len(zeros) == 1 else f"{zeros[0]} to {zeros[-1]}"
        layers = "the hidden layer" if len(zeros) == 1 else f"all {len(zeros)} hidden layers,"
        return f"No signal, {since}: delta_rms is exactly 0 in {layers} {where}, so they learn nothing."
    times = "nothing" if not found["total"] else f"{compact(found['total'])} times as much"
    if status == "diverged":
        return (
            f"At step {found['at']}, the last with numbers, {times} of the error arrived at the first hidden"
            " layer as stood at the last."
        )
    arrives = f"{times} of the error arrives at the first hidden layer as stands at the last"
    if not found["total"]:
        arrives = f"nothing of the error arrives at the first hidden layer (0 in {', '.join(found['zeros'])})"
    if found["becomes"] == "arrives":
        return f"The signal neither vanishes nor explodes: {arrives}."
    return f"The signal {found['becomes']} on its way back, {since}: {arrives}."


def _over_time(facts: Mapping[str, Any]) -> str | None:
    said = []
    for own in facts["over_time"][:MOST_CELLS]:
        name = f"{own['quantity']} of {own['layer']}"
        if own["total"]:
            lost = math.log10(own["total"])
            which = f"{abs(lost):.1f} decades {'lost' if lost < 0 else 'gained'}"
            said.append(
                f"back through {own['steps']} time steps {name} changes by a factor of"
                f" {compact(own['factor'])} a step, {compact(own['total'])} in all ({which})"
            )
        else:
            said.append(f"nothing of {name} reaches time steps before {own['reaches']} of {own['steps']}")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if said else None


def growth(run: Run) -> dict[str, Any] | None:
    """The largest `activation_rms` of a layer, at the first recorded step and the last one with a number."""
    found = []
    for line in run.lines[1:]:
        known = [x for x in line.get("activation_rms") or () if x is not None]
        found += [(line["step"], max(known))] if known else []
    if not found:
        return None
    (first, x), (last, y) = found[0], found[-1]
    return {"first_step": first, "first": x, "last_step": last, "last": y}


def _was_typed(run: Run, summary: Mapping[str, Any]) -> bool:
    """Whether dlexp itself made the run; the loop of a script of one's own has no words."""
    return any(summary.get(key) for key in ("overrides", "config")) or (run.folder / OVERRIDES).is_file()


def _used(summary: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """Those of the groups that not every model has a place for which this one takes.

    Where that is not on record: those that were typed, as others would have been refused.
    """
    named = summary.get("used")
    typed = {key.partition(".")[0] for key in split_words(words)}
    return [group for group in OPTIONAL if group in (typed if named is None else named)]


def theory(run: Run) -> dict[str, tuple[float, str]]:
    """Quantity -> the factor per layer that theory gives for its start, and how that is called."""
    summary = summary_of(run)
    return {name: (found.factor, found.label) for name, found in slopes(summary).items()}


def of_sweep(sweep: Sweep) -> dict[str, Any]:
    """A sweep, finished or not: kind, folder, command, swept, metric, best, arms, runs, ..."""
    plan = read_json(sweep.folder / PLAN)
    words = plan.get("words") or []
    counts: dict[str, int] = {}
    for job in sweep.jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    found: dict[str, Any] = clean(
        {
            "kind": "sweep",
            "folder": str(sweep.folder),
            "command": command_line(words, multirun=True) if plan else None,
            "words": words,
            "swept": sweep.swept,
            "metric": sweep.metric,
            "statuses": counts,
            "best": sweep.best,
            "arms": [_arm(sweep, arm) for arm in sweep.rows],
            "runs": [
                {
                    "run": job.name,
                    "asked": {key: value(job.asked(key)) for key in sweep.keys},
                    "seed": job.seed,
                    "status": job.status,
                    "diagnosis": job.diagnosis,
                    "numbers": dict(job.numbers),
                    "reason": job.error,
                }
                for arm in sweep.rows
                for job in arm.jobs
            ],
        }
    )
    return found


def _arm(sweep: Sweep, arm: Arm) -> dict[str, Any]:
    return {
        "asked": dict(zip(sweep.keys, arm.values, strict=True)),
        "runs": len(arm.jobs),
        "ended": len(arm.ended),
        "status": arm.status,
        "diagnosis": arm.diagnosis,
        "mean": {name: arm.mean(name) for name in sweep.names},
        "std": {name: arm.std(name) for name in sweep.names},
    }


def command_line(words: Sequence[str], *, multirun: bool = False) -> str:
    """What is typed to make it again."""
    return shlex.join(["dlexp", *(["-m"] if multirun else []), *words])


def splits(metrics: Mapping[str, Any]) -> list[str]:
    """Those that have a number, in their usual order."""
    found = {tag.partition("/")[2] for tag in metrics}
    return [split for split in SPLITS if split in found]


def clean(content: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(content, Mapping):
        return {str(key): clean(own) for key, own in content.items()}
    if isinstance(content, (list, tuple)):
        return [clean(own) for own in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def summary_of(run: Run) -> dict[str, Any]:
    """Its summary, or what is known so far; of a run that failed before its first step with what it lacks."""
    if not (run.folder / SUMMARY).exists():
        return read_summary(run.folder)
    known = {name: x for name, x in run.summary.items() if x is not None or name not in NOTHING}
    return NOTHING | known


NOTHING: dict[str, Any] = {
    "layers": [],
    "metrics": {},
    "diverged": None,
    "steps": None,
    "recorded": {"first": None, "last": None},
}

"""Rules on what passes through the layers: each reads the evidence and returns a finding, or None.

Thresholds are free of scale: decades over the depth, shares of units, multiples of the loss of a constant
answer. The ranges beside them were measured on labelled runs, see tests/benchmarks/diagnosis.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dlexp.diagnose import remedies as try_
from dlexp.diagnose.evidence import Array, Evidence, log10, theil_sen
from dlexp.diagnose.finding import Finding, Words

MANY = 4  # layers from which on a slope over depth says something

# Distinct rows of a healthy layer: all; of one whose units are alike: 1 of them. Half-way down would do.
DISTINCT = 0.75
NARROW = 4  # units: of fewer, some are alike by chance

# Decades of delta_rms over all hidden layers, + weaker towards the input. Healthy networks: -1.7 (twenty
# layers of batch norm, by theory) to 0.4; those whose signal dies 2.6 and more, or explodes -2.9 and less.
EXPLODES, VANISHES, VANISHES_BADLY = 2.5, 2.0, 3.0
# Over time steps a healthy network forgets, too: only a loss that more than a thousandth never survives.
VANISHES_OVER_TIME, EXPLODES_OVER_TIME = 3.0, 2.5
FORGETS = 0.5  # progress from which on a network that forgets has not needed to remember

DEAD = 0.5  # share of units of a layer; healthy 0.39 at the start and 0.31 later, dying 0.78 and more
NEARLY_ALL = 0.9  # of the units of a layer: what is behind it gets next to nothing
SATURATED = 0.25  # mean slope / steepest slope; healthy 0.59 and more at the start, 0.40 later
LEARNED_ANYWAY = 0.8  # progress from which on a start at the flat ends has done no harm
FIRST_LOSS = 5.0  # in losses of a constant answer; healthy 1 to 1.9, too large a start 9 and more
SOON = 0.05  # of all steps: a first loss that has come down by then did no harm
FAR, SMALL, LARGE = 3.0, 0.1, 10.0  # |mean| / deviation of inputs, and the deviation

# The steepest slope of activations that flatten at both ends; of others saturation says nothing.
STEEPEST = {
    "Sigmoid": 0.25,
    "Tanh": 1.0,
    "Softsign": 1.0,
    "Hardtanh": 1.0,
    "ScaledSigmoid": 1.0,
    "SigmoidPlus": 0.25,
}
FADING = ("sigmoid", "sigmoid_plus")  # slope at most a quarter
# Those that cut off, so that a unit can be dead.
CUTS = ("ReLU", "ReLU6", "GELU", "SiLU", "Hardswish", "Mish", "LeakyReLU", "ELU", "SELU", "CELU")


def margin(value: float, threshold: float) -> float:
    """By how many decades one is larger than the other; 0 where it is not."""
    if not value > 0 or not threshold > 0:
        return 0.0
    return max(math.log10(min(value, 1e300) / threshold), 0.0)


def number_of(name: str) -> str:
    """`12` of `12_linear`: how a layer is called in a sentence."""
    digits = name.partition("_")[0]
    return str(int(digits)) if digits.isdigit() else name


def some(names: Sequence[str], hidden: int) -> str:
    """Layers in a sentence, by their numbers among all; and of how many hidden ones they are how many."""
    shown = ", ".join(map(number_of, names[:6]))
    layers = f"layer{'s' if len(names) > 1 else ''} {shown}{', ...' if len(names) > 6 else ''}"
    return f"{layers} ({len(names)} of {hidden} hidden)"


def from_step(step: float | None) -> str:
    return "" if step is None else f", from step {int(step)} on"


def non_finite(e: Evidence) -> Finding | None:
    """A loss that is not finite. Looked at first: NaN makes any other number wrong."""
    bad = np.flatnonzero(~e.finite)
    if e.diverged is None and not len(bad):
        return None
    told = dict(e.diverged or {})
    step = int(told.get("step", e.steps[bad[0]] if len(bad) else e.trained))
    born = step == 0
    layer, why = told.get("layer"), told.get("reason")
    place = f": {layer}, {why}" if layer else ""
    sentence = f"{'Not finite from the start' if born else f'Diverged at step {step}'}{place}"
    changed = (try_.matched(e), try_.standardized(e)) if born else (try_.learning_rate(e, 0.1),)
    return Finding(
        "non_finite",
        "critical",
        sentence,
        "step of the first loss that is not finite",
        float(step),
        math.inf,
        1.0,
        (layer,) if layer else (),
        step,
        try_.known(e, *changed, try_.normalized(e), ("clip=norm",)),
    )


def symmetric(e: Evidence) -> Finding | None:
    """Units that start alike and stay alike, because equal weights get equal gradients.

    Rows of weights are compared, not activations: of dead inputs all z are equal. A layer that starts
    at 0 on purpose, the last of a residual branch say, is told by its end: its units have parted.
    """
    first, last = e.look("distinct_rows", "first"), e.look("distinct_rows", "last")
    wide = np.array([not e.shapes or (e.shapes[i] or (NARROW,))[0] >= NARROW for i in e.hidden], bool)
    start = e.of("weight_norm")[:1]
    empty = start[0] == 0 if len(start) else np.zeros(len(e.hidden), bool)
    parted = np.where(np.isfinite(last), last >= DISTINCT, empty & ~empty.all())
    alike = wide & (first < DISTINCT) & ~parted
    if not alike.any():
        return None
    worst = int(np.nanargmin(np.where(alike, first, np.nan)))
    names = e.names(e.hidden[alike])
    return Finding(
        "symmetric",
        "critical",
        f"Symmetric units: {some(names, len(e.hidden))} start with {100 * first[worst]:.2g}% distinct"
        " units and stay so; equal units get equal gradients",
        "distinct_rows at the start",
        float(first[worst]),
        DISTINCT,
        margin(DISTINCT, max(float(first[worst]), 1e-3)),
        names,
        0,
        try_.known(e, try_.matched(e), try_.start(e, "pytorch_default")),
        {"layers": float(alike.sum())},
    )


def chain(e: Evidence) -> Array:
    """The layers along which the signal runs: sums of residual blocks where there are many, else hidden."""
    return e.streams if len(e.streams) >= MANY else e.hidden


def decades(e: Evidence, quantity: str) -> Array:
    """(n,): by how many decades a quantity grows from the first to the last layer of the chain."""
    along = chain(e)
    values, place = log10(e.of(quantity, along)), np.arange(len(along))
    enough = np.isfinite(values).sum(axis=1) >= MANY
    return np.array(
        [
            theil_sen(place, row) * (len(along) - 1) if ok else math.nan
            for row, ok in zip(values, enough, strict=True)
        ]
    )


def decades_over_time(e: Evidence) -> Array:
    """(n,): the same over the time steps of the cell that keeps most, from the first to the last."""
    found = []
    for i in sorted({i for _, i in e.over_time}):
        if e.cells is None or not e.cells[i]:
            continue
        series = [e.over_time[q, i] for q in ("delta_rms", "cell_delta_rms") if (q, i) in e.over_time]
        along = [log10(s[e.finite]) for s in series if s.shape[1] > MANY]
        if along:
            slopes = [[theil_sen(np.arange(s.shape[1]), row) * (s.shape[1] - 1) for row in s] for s in along]
            found.append(np.array(slopes))
    if not found:
        return np.full(int(e.finite.sum()), np.nan)
    every = np.concatenate(found)
    least = np.nanargmin(np.where(np.isfinite(every), np.abs(every), np.inf), axis=0)
    found_least: Array = every[least, np.arange(every.shape[1])]
    return found_least


def held(e: Evidence, values: Array, threshold: float) -> int | None:
    """The first early step with so large a value, if there are two of them, or but one that has a value."""
    early = values[e.early]
    large, known = early >= threshold, np.isfinite(early)
    if large.any() and large.sum() >= min(2, int(known.sum())):
        return int(e.steps[e.early[np.flatnonzero(large)[0]]])
    return None


def exploding(e: Evidence) -> Finding | None:
    """The error grows on its way back, or the activation on its way forward, before any damage is done.

    The norm of all gradients is no evidence, nor are the gradients of weights: what grows one way shrinks
    the other, and their product stays flat.
    """
    back, onward = decades(e, "delta_rms"), decades(e, "activation_rms")
    if len(e.streams) >= MANY:  # a sum of branches grows on its way by design
        onward = np.full_like(onward, np.nan)
    for values, what, arrow in ((-back, "delta_rms", "back"), (onward, "activation_rms", "onward")):
        # Training may repair it soon: what counts is how the network started, on two recorded steps.
        since = held(e, values, EXPLODES)
        known = np.flatnonzero(np.isfinite(values))
        if since is not None and values[known[0]] >= EXPLODES:
            most = float(values[known[0]])
            along = chain(e)
            factor = 10 ** (most / (len(along) - 1))
            first, last = (along[-1], along[0]) if arrow == "back" else (along[0], along[-1])
            return Finding(
                "exploding",
                "critical" if e.has_not_learned(0.3) else "warning",
                f"Exploding signal: {what} grows x{factor:.3g} per layer on its way {arrow}, from layer"
                f" {number_of(e.layers[first])} to {number_of(e.layers[last])} ({most:.1f} decades)"
                f"{from_step(since)}",
                f"decades of {what}",
                most,
                EXPLODES,
                most - EXPLODES,
                e.names(along),
                since,
                try_.known(
                    e,
                    *try_.carried(e),
                    (*try_.learning_rate(e, 0.1), "clip=norm"),
                ),
                {"factor": float(factor)},
            )
    through = -decades_over_time(e)
    since = held(e, through, EXPLODES_OVER_TIME)
    if since is None or e.learned(FORGETS):
        return None
    most = float(np.nanmax(through[e.early]))
    return Finding(
        "exploding",
        "critical" if e.has_not_learned(0.3) else "warning",
        f"Exploding through time: the error grows by {most:.1f} decades on its way back over the time steps"
        f"{from_step(since)}",
        "decades of delta_rms over time",
        most,
        EXPLODES_OVER_TIME,
        most - EXPLODES_OVER_TIME,
        e.names(np.flatnonzero(e.cells)) if e.cells is not None else (),
        since,
        try_.known(e, try_.matched(e), ("clip=norm",), *try_.remembering(e)),
    )


def _is_small(e: Evidence) -> bool:
    """Was an initializer named that takes no account of the size of the layers?"""
    return e.choice("initializer") in ("normal", "small_normal", "uniform", "constant", "zeros")


def vanishing(e: Evidence) -> Finding | None:
    """The error fades on its way back. The layer that answers is left out: its error is always larger.

    Looked at early: Adam, whose steps do not shrink with the gradient, hides it later.
    """
    values = decades(e, "delta_rms")
    since = held(e, values, VANISHES)
    if since is not None:
        early = values[e.early]
        most = float(early[0] if early[0] >= VANISHES else np.nanmax(early))
        along = chain(e)
        factor = 10 ** (-most / (len(along) - 1))
        kinds = {e.activations[i] for i in along if e.activations and e.activations[i]}
        steep = STEEPEST.get(next(iter(kinds))) if len(kinds) == 1 else None
        why = ""
        if steep is not None and steep < 1:
            why = f"; {next(iter(kinds)).lower()}'s slope is at most {steep:g}"  # type: ignore[union-attr]
        squashed = e.choice("activation") in try_.SQUASHING
        return Finding(
            "vanishing",
            "critical" if most >= VANISHES_BADLY and e.has_not_learned(0.5) else "warning",
            f"Vanishing gradient: the signal loses x{factor:.2g} per layer from layer"
            f" {number_of(e.layers[along[-1]])} down to {number_of(e.layers[along[0]])} ({most:.1f} decades)"
            f"{from_step(since)}{why}",
            "decades of delta_rms",
            most,
            VANISHES,
            most - VANISHES,
            e.names(along),
            since,
            try_.known(
                e,
                try_.relu(e) if squashed else (),
                *(try_.carried(e) if not squashed else (try_.normalized(e), try_.residual(e))),
            ),
            {"factor": float(factor)},
        )
    through = decades_over_time(e)
    since = held(e, through, VANISHES_OVER_TIME)
    if since is None or e.learned(FORGETS):
        return None
    most = float(np.nanmax(through[e.early]))
    return Finding(
        "vanishing",
        "critical" if e.has_not_learned(0.1) else "warning",
        f"Vanishing through time: the error loses {most:.1f} decades on its way back over the time steps"
        f"{from_step(since)}",
        "decades of delta_rms over time",
        most,
        VANISHES_OVER_TIME,
        most - VANISHES_OVER_TIME,
        e.names(np.flatnonzero(e.cells)) if e.cells is not None else (),
        since,
        # weights that were drawn small come first: a cell that remembers does not help them
        try_.known(e, *([try_.matched(e)] if _is_small(e) else []), *try_.remembering(e), try_.matched(e)),
    )


def _dead(e: Evidence, end: str) -> Array:
    """(l,): the share of dead units, over many samples where they were looked at, else over a batch."""
    looked = e.look("dead_units", end)
    recorded = e.of("dead_fraction")
    at = 0 if end == "first" else -1
    batch = recorded[at] if len(recorded) else np.full(len(e.hidden), np.nan)
    share = np.where(np.isfinite(looked), looked, batch)
    cuts = np.array([not e.activations or e.activations[i] in (*CUTS, None) for i in e.hidden], dtype=bool)
    return np.where(cuts, share, np.nan)


def _too_many(e: Evidence) -> Array:
    """(l,): the share of dead units that is a fault: of few units some more may be dead by chance."""
    units = np.array([(e.shapes[i] or (1,))[0] if e.shapes else 64 for i in e.hidden], dtype=float)
    return np.asarray(DEAD + 0.5 / np.sqrt(np.maximum(units, 1)))  # one standard deviation


def _starts_below(e: Evidence) -> bool:
    """Do biases hold the units down?"""
    bias = e.value("initializer.bias")
    return isinstance(bias, (int, float)) and bias < 0


def _dead_finding(e: Evidence, share: Array, since: int, said: str, *tries: Sequence[str]) -> Finding:
    hit = share >= _too_many(e)
    worst = int(np.nanargmax(share))
    return Finding(
        "dead_units",
        "critical" if e.has_not_learned(0.3) else "warning",
        f"Dead units: {share[worst]:.0%} of those in layer {number_of(e.layers[e.hidden[worst]])} {said}",
        "share of dead units",
        float(share[worst]),
        DEAD,
        margin(float(share[worst]), DEAD),
        e.names(e.hidden[hit]),
        since,
        try_.known(e, *tries),
        {
            "layers": float(hit.sum()),
            "born": float(since == 0),
            "certain": float(share[worst] >= NEARLY_ALL or _starts_below(e)),
        },
    )


def born_dead(e: Evidence) -> Finding | None:
    """Units that give nothing for any of many samples, from the start.

    Units are counted, not entries: half of the entries behind a healthy ReLU are 0.
    """
    share = _dead(e, "first")
    if not (share >= _too_many(e)).any():
        return None
    return _dead_finding(
        e,
        share,
        0,
        "give nothing for any sample, from the start",
        ("initializer.bias=0",) if _starts_below(e) else try_.leaky(e),
        try_.matched(e),
        try_.normalized(e),
    )


def died(e: Evidence) -> Finding | None:
    """Units that were alive and give nothing any more. Where the network has learned well it did no harm."""
    first, last = _dead(e, "first"), _dead(e, "last")
    share = np.where(np.nan_to_num(first) >= DEAD, np.nan, last)
    if not (share >= _too_many(e)).any() or not e.has_not_learned(0.9):
        return None
    recorded = e.of("dead_fraction")
    gone = np.flatnonzero((recorded >= DEAD).any(axis=1))
    since = int(e.steps[gone[0]]) if len(gone) else int(e.trained)
    return _dead_finding(
        e,
        share,
        max(since, 1),
        f"have died by step {since}: they give nothing for any sample",
        try_.learning_rate(e, 0.1),
        try_.leaky(e),
        try_.normalized(e),
    )


def slopes(e: Evidence, end: str) -> Array:
    """(l,): mean slope / steepest slope, of layers whose activation flattens at both ends."""
    looked = e.look("slope_mean", end)
    steepest = np.array(
        [STEEPEST.get(e.activations[i] or "", np.nan) if e.activations else np.nan for i in e.hidden]
    )
    found = looked / steepest
    if e.value("model.cell") == "rnn" and e.value("model.nonlinearity") == "tanh" and e.cells is not None:
        rms = e.of("activation_rms")
        if len(rms):  # the slope of a tanh is 1 - h^2
            own = 1 - rms[0 if end == "first" else -1] ** 2
            found = np.where(e.cells[e.hidden], own, found)
    return np.asarray(found)


def _first_if(swapped: bool, one: Words, other: Words) -> tuple[Words, Words]:
    return (one, other) if swapped else (other, one)


def saturated(e: Evidence) -> Finding | None:
    """Activations at their flat ends. Trained networks get there, too: later it counts only with harm."""
    first, last = slopes(e, "first"), slopes(e, "last")
    at_start = bool((first <= SATURATED).any())
    late = bool((last <= SATURATED).any()) and e.has_not_learned(0.1)
    if not at_start and not late:
        return None
    share = first if at_start else last
    worst = int(np.nanargmin(share))
    hit = share <= SATURATED
    since = 0 if at_start else int(e.trained)
    harmless = e.learned(LEARNED_ANYWAY)
    return Finding(
        "saturated",
        "info" if harmless else "critical" if e.has_not_learned(0.3) else "warning",
        f"Saturated: {some(e.names(e.hidden[hit]), len(e.hidden))} at the flat ends of the"
        f" activation, where its slope is {max(float(share[worst]), 0):.0%} of the steepest,"
        f" {'from step 0 on' if at_start else 'at the end'}",
        "mean slope / steepest slope",
        float(share[worst]),
        SATURATED,
        margin(SATURATED, max(float(share[worst]), 1e-3)),
        e.names(e.hidden[hit]),
        since,
        # a sigmoid that starts well still fades over the layers
        try_.known(
            e, *_first_if(e.choice("activation") in FADING, try_.relu(e), try_.matched(e)), try_.normalized(e)
        ),
        {"layers": float(hit.sum())},
    )


def bad_init_scale(e: Evidence) -> Finding | None:
    """A first loss far above that of a constant answer: the network starts certain, and wrong.

    One that starts well answers about 0, and where the numbers asked for are far from it that costs more.
    """
    known = e.loss[e.finite]
    if e.chance is None or e.chance <= 0 or not len(known):
        return None
    constant = max(e.chance, e.zero or 0.0)
    times = float(known[0]) / constant
    if not times > FIRST_LOSS:
        return None
    soon = known[e.steps[e.finite] <= max(SOON * e.trained, 5)]
    harmless = len(soon) > 1 and float(soon.min()) < 1.5 * constant and e.learned(0.3)
    return Finding(
        "bad_init_scale",
        "info" if harmless else "warning" if e.learned(0.3) else "critical",
        f"Weights start too large: the first loss is {times:.3g} times that of a constant answer"
        f" ({known[0]:.3g} against {constant:.3g})",
        "first loss / loss of a constant answer",
        times,
        FIRST_LOSS,
        margin(times, FIRST_LOSS),
        (),
        0,
        try_.known(
            e,
            (*try_.matched(e), *try_.usual_rate(e)),
            try_.matched(e),
            try_.normalized(e),
            try_.learning_rate(e, 0.1),
        ),
    )


def input_scale(e: Evidence) -> Finding | None:
    """Inputs far from mean 0 and deviation 1; pixels between 0 and 1, one-hot and sparse inputs are not."""
    if e.inputs is None:
        return None
    off = _off_scale(*e.inputs)
    if off is None:
        return None
    value, threshold, said = off
    first = e.loss[0] if len(e.loss) else math.nan
    blown = not first <= FIRST_LOSS * e.chance if e.chance else not math.isfinite(first)
    scaled = (e.choice("normalization") or "none") != "none"
    harm = blown or not e.learned(0.9)
    return Finding(
        "input_scale",
        "critical" if harm and not scaled else "warning" if harm else "info",
        f"Inputs are not scaled: they have {said}",
        "scale of the inputs",
        value,
        threshold,
        margin(value, threshold),
        e.names(e.hidden[:1]),
        0,
        try_.known(e, try_.standardized(e), try_.normalized(e)),
        {"mean": e.inputs[0], "std": e.inputs[1]},
    )


def _off_scale(mean: float, std: float) -> tuple[float, float, str] | None:
    """What is most out of the ordinary: value, threshold, and words for it; None where nothing is."""
    if std <= 0:
        return None
    off = [
        (abs(mean) / std, FAR, f"a mean of {abs(mean) / std:.3g} deviations"),
        (std, LARGE, f"a deviation of {std:.3g}"),
        (SMALL / std, 1.0, f"a deviation of {std:.3g}"),
    ]
    value, threshold, said = max(off, key=lambda one: one[0] / one[1])
    return None if value <= threshold else (value, threshold, said)


def target_scale(e: Evidence) -> Finding | None:
    """Targets that are left far from mean 0 and deviation 1, and a network that has not learned them.

    Of mse the best constant answer costs their variance, and to answer 0 the mean of their squares.
    """
    if e.value("data.standardize_targets") is not False or e.chance is None or e.zero is None:
        return None
    mean, std = math.sqrt(max(e.zero - e.chance, 0.0)), math.sqrt(e.chance)
    off = _off_scale(mean, std)
    if off is None or not e.has_not_learned(0.3):
        return None
    value, threshold, said = off
    return Finding(
        "input_scale",
        "critical",
        f"Targets are not scaled: they have {said}, and a new network answers about 0",
        "scale of the targets",
        value,
        threshold,
        margin(value, threshold),
        (),
        0,
        try_.known(e, ("data.standardize_targets=true",), try_.learning_rate(e, 0.1)),
        {"mean": mean, "std": std},
    )

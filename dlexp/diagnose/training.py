"""Rules on how training went: steps too large or too small, a loss that swings, a network that overfits."""

from __future__ import annotations

import math

import numpy as np

from dlexp.diagnose import remedies as try_
from dlexp.diagnose.evidence import Array, Evidence
from dlexp.diagnose.finding import Finding
from dlexp.diagnose.signals import margin, some

# ||change of W|| / ||W|| of a step, the layer where it is largest, median over steps. Healthy runs 0.0008 to
# 0.025, and up to 0.06 where training bears it; harm begins at 0.09. Alone it is no fault.
TOO_LARGE = 10**-1.1
START = 0.05  # of all steps, which the median leaves out: the first steps of Adam are large
NOT_LEARNED = 0.05  # progress: healthy 0.19 and more
# Where the loss has been so many times that of a constant answer in between, some progress is too little.
BLOWN, SLOWED = 3.0, 0.5

# ||W - W at the start|| / ||W at the start||, of the middle layer: healthy 0.074 and more in 600 steps.
UNMOVED, STEPS = 0.02, 600
FEW_STEPS = 20  # of fewer, nothing is said of how it went
PATIENCE = 100  # steps, before which no network has to have learned
NO_BETTER = 0.3  # progress, below which a network that has hardly moved has not got there

SWINGS, NET_FALL = 0.15, 0.05  # spread of the loss in the second half / its level; healthy 0.09
FELT = 0.05  # the same in losses of a constant answer: near a loss of 0 any noise is a large share of it
EVALUATIONS = 12  # of which a spread is taken
FLOOR = 1e-2  # of losses whose ratio is taken

RISE, GAP, FITTED = 0.15, 0.5, 0.5  # of the validation loss; in losses of a constant answer
UNSEEN = 0.98  # loss/validation in losses of a constant answer, below which something is learned
FROZEN = 1e3  # times less than the layer that moves most; healthy layers differ by 1.2 decades


def updates(e: Evidence) -> Array:
    """(n, l): ||change of W|| / ||W|| of the layers that a learning rate is judged by."""
    return e.of("update_ratio", e.learning)


def largest_update(e: Evidence) -> float:
    """The median over steps, without the first, of the layer where it is largest; NaN if not known."""
    u = updates(e)
    later = u[e.steps[e.finite] > START * e.trained] if len(u) > 2 else u
    if not np.isfinite(later).any():
        later = u
    with np.errstate(all="ignore"):
        found = [
            float(np.median(column[np.isfinite(column)])) for column in later.T if np.isfinite(column).any()
        ]
    return max(found, default=math.nan)


def first_update(e: Evidence) -> float:
    """The largest of all hidden layers on two of the first recorded steps, the smaller of the two."""
    u = updates(e)[:6]
    with np.errstate(all="ignore"):
        most = np.sort(np.where(np.isfinite(u), u, 0).max(axis=1)) if u.size else np.zeros(0)
    return float(most[-2] if len(most) > 1 else most[-1]) if len(most) else math.nan


def lr_too_high(e: Evidence) -> Finding | None:
    """Steps so large that they do harm. Large steps alone are none: some networks bear them well."""
    later, early = largest_update(e), first_update(e)
    if e.progress == -math.inf and np.isfinite(updates(e)).any():  # the last steps before count, too
        later = float(np.nanmax(updates(e)))
    value = max((x for x in (later, early) if math.isfinite(x)), default=math.nan)
    if not value > TOO_LARGE or e.progress is None:
        return None
    known = e.loss[e.finite]
    worse = e.level is not None and len(known) > 1 and e.last_loss is not None and e.last_loss > e.level
    blown = e.level is not None and len(known) > 1 and float(known[1:].max()) > BLOWN * max(e.level, known[0])
    if not (e.has_not_learned(SLOWED if blown else NOT_LEARNED) or worse):
        return None
    # so that a step changes what it should; but at most by a factor that a person would try
    factor = min(max(try_.GOOD_UPDATE / value, 1e-4), 0.1)
    return Finding(
        "lr_too_high",
        "critical",
        f"Learning rate too high: a step changes the weights of a layer by {value:.2g} of their size, and the"
        f" loss {'is no longer finite' if e.progress == -math.inf else 'has not come down'}",
        "update_ratio",
        value,
        TOO_LARGE,
        margin(value, TOO_LARGE),
        _most_moved(e),
        None,
        try_.known(
            e,
            try_.learning_rate(e, factor),
            try_.learning_rate(e, factor / 10),
            (*try_.learning_rate(e, 0.1), "clip=norm"),
            ("scheduler=warmup",),
        ),
    )


def _most_moved(e: Evidence) -> tuple[str, ...]:
    u = updates(e)
    if not np.isfinite(u).any():
        return ()
    with np.errstate(all="ignore"):
        most = np.where(np.isfinite(u), u, -1.0).max(axis=0)
    return e.names(e.learning[[int(most.argmax())]])


def moved(e: Evidence) -> float:
    """How far the middle hidden layer went from its start; without a look at most so far."""
    looked = e.look("displacement", "last", e.learning)
    if np.isfinite(looked).any():
        return float(np.nanmedian(looked))
    u = updates(e)
    if len(u) < 2 or not np.isfinite(u).any():
        return math.nan
    pairs = np.nan_to_num(u[1:] + u[:-1]) / 2
    whole = (pairs * np.diff(e.steps[e.finite])[:, None]).sum(axis=0)  # of all steps, also unrecorded ones
    return float(np.median(whole))


def lr_too_low(e: Evidence) -> Finding | None:
    """Weights that have hardly left their start, and a loss that is still high.

    Not told by small steps alone, which converged networks take, too, nor by the norm of the weights.
    """
    distance = moved(e)
    if e.trained < FEW_STEPS or not math.isfinite(distance):
        return None
    threshold = UNMOVED * min(1.0, e.trained / STEPS)
    if not distance < threshold or not e.has_not_learned(NO_BETTER):
        return None
    u = updates(e)
    typical = float(np.nanmedian(u)) if np.isfinite(u).any() else 0.0
    factor = min(max(try_.GOOD_UPDATE / typical, 10.0), 1e4) if typical > 0 else 100.0
    return Finding(
        "lr_too_low",
        "warning",
        f"Learning rate too low: after {e.trained} steps the weights have moved by {distance:.2g} of their"
        f" size, and the loss has come down by {max(e.progress or 0.0, 0.0):.0%}",
        "displacement",
        distance,
        threshold,
        margin(threshold, max(distance, 1e-12)),
        (),
        None,
        try_.known(e, try_.learning_rate(e, factor), try_.learning_rate(e, 10.0), ("optimizer=adam",)),
        {"update_ratio": typical},
    )


def unstable_loss(e: Evidence) -> Finding | None:
    """A loss that swings in the second half of training and does not come down; that of a game may."""
    if e.is_game:
        return None
    curve = e.validation[np.isfinite(e.validation)]
    whole = len(curve) >= EVALUATIONS  # of a whole split: without the noise of batches
    known = curve if whole else e.loss[e.finite]
    if len(known) < EVALUATIONS or not e.finite.all() or e.level is None:
        return None
    half = np.maximum(known[len(known) // 2 :], FLOOR)
    parts = len(half) if whole else min(10, len(half) // 2)
    windows = [float(np.median(part)) for part in np.array_split(half, parts)]
    level = float(np.median(windows))
    spread = float(np.median(np.abs(np.array(windows) - level))) / level
    third = max(len(windows) // 3, 1)
    fall = 1 - float(np.median(windows[-third:])) / float(np.median(windows[:third]))
    if not spread > SWINGS or fall > NET_FALL or spread * level < FELT * e.level:
        return None
    return Finding(
        "unstable_loss",
        "warning",
        f"Unstable loss: in the second half of training it swings by {spread:.0%} around {level:.3g} and does"
        " not come down",
        "spread of the loss / its level",
        spread,
        SWINGS,
        margin(spread, SWINGS),
        (),
        int(e.trained // 2),
        try_.known(e, try_.learning_rate(e, 0.1), ("scheduler=cosine",), ("clip=norm",)),
    )


def smooth(values: Array) -> Array:
    """Each the median of itself and its two neighbours: one odd evaluation of batch norm is none."""
    if len(values) < 3:
        return values
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0))


def overfit(e: Evidence) -> Finding | None:
    """The validation loss rises while that of training is low, and the gap between them is wide.

    Not where the best weights are back, nor in a game, whose losses say nothing of the kind.
    """
    if e.is_game:
        return None
    curve = e.validation[np.isfinite(e.validation)]
    level, train = e.level, e.metrics.get("loss/train")
    train = e.last_loss if train is None else train
    if len(curve) < 3 or level is None or train is None or not e.finite.all() or e.restored:
        return None
    flat = smooth(curve)
    best = int(flat.argmin())
    if flat[best] <= 0:
        return None
    end = float(np.median(curve[-3:]))
    rise, gap = end / float(flat[best]) - 1, end - train
    if not (rise > RISE and train < FITTED * level and gap > GAP * level):
        return None
    step = int(e.evaluated[np.isfinite(e.validation)][best])
    hint = (
        "; it never was better than a constant answer: are the labels right?" if flat[best] >= level else ""
    )
    return Finding(
        "overfit",
        "warning",
        f"Overfitting: since step {step} the validation loss has risen by {rise:.0%}, to {end:.3g}"
        f" against {train:.3g} in training{hint}",
        "rise of loss/validation",
        rise,
        RISE,
        margin(rise, RISE),
        (),
        step,
        try_.known(
            e, (*try_.dropped(e), "stopping=early"), ("stopping=early",), try_.decayed(e), try_.narrower(e)
        ),
        {"best_step": float(step), "gap": gap},
    )


def frozen_layer(e: Evidence) -> Finding | None:
    """A layer that does not move while others do; not where it was meant.

    So it is of transfer with frozen=true, and of layers without a gradient in front of all that learn, a
    backbone: a layer that somebody forgot stands between others.
    """
    layers = np.setdiff1d(e.hidden, e.base)
    u = e.of("update_ratio", layers)
    if e.value("model.frozen") is True or len(u) < 2 or u.shape[1] < 2:
        return None
    stuck = np.nan_to_num(u).max(axis=0) == 0
    grads = e.of("grad_norm", layers)
    typical = np.array([float(np.median(c[np.isfinite(c)])) if np.isfinite(c).any() else 0.0 for c in u.T])
    top = float(typical.max())
    most = np.nan_to_num(u).max(axis=1, keepdims=True)
    slow = (typical * FROZEN < top) & (np.nan_to_num(u) * FROZEN < most).all(axis=0)
    hit = (stuck | slow) & (top > 0)
    # a start of zeros has no ratio; a layer without a gradient is frozen, one whose gradient is 0 is not fed
    hit &= (e.of("weight_norm", layers)[0] > 0) | ~np.isfinite(grads).any(axis=0)
    if not hit.any() or hit.all():
        return None
    names = e.names(layers[hit])
    least = float(typical[hit].min())
    return Finding(
        "frozen_layer",
        "warning",
        f"Frozen: {some(names, len(e.hidden))} {'does' if len(names) == 1 else 'do'} not move"
        f"{'' if least == 0 else f': by {least:.1e} of its size a step, others by {top:.1e}'}",
        "largest update_ratio / that of the layer",
        top / least if least > 0 else math.inf,
        FROZEN,
        margin(top / max(least, 1e-12), FROZEN),
        names,
        0,
        try_.known(e, ("model.frozen=false",) if e.value("model.frozen") is not None else ()),
    )


def held_back(e: Evidence) -> bool:
    """Does a penalty shrink the weights faster than the loss lets them grow?"""
    norms = e.of("weight_norm", e.learning)
    if not try_.without_penalty(e) or len(norms) < 2:
        return False
    with np.errstate(all="ignore"):
        shrunk = norms[-1] / norms[0]
    return bool(np.nanmedian(shrunk) < 0.5) if np.isfinite(shrunk).any() else False


def _by_heart(e: Evidence) -> Finding | None:
    """The training loss comes down, and that of validation never gets below that of a constant answer.

    Not where that is meant: debug=one_batch.
    """
    if e.value("train.fixed_batch") is True:
        return None
    curve = e.validation[np.isfinite(e.validation)]
    if e.trained < PATIENCE or e.chance is None or e.chance <= 0 or not len(curve):
        return None
    best = float(curve.min()) / e.chance
    if best < UNSEEN or not e.learned(NOT_LEARNED):
        return None
    return Finding(
        "not_learning",
        "warning",
        f"Not learning: loss/validation was {best:.3g} times that of a constant answer at best, while"
        f" loss/train has come down by {e.progress:.0%}; it learns by heart at best, and the labels may be"
        " wrong",
        "least loss/validation / loss of a constant answer",
        best,
        UNSEEN,
        margin(best, UNSEEN),
        numbers={"weights_shrink": 0.0},
    )


def not_learning(e: Evidence) -> Finding | None:
    """No better than a constant answer, on its own samples or on others, and no rule says why."""
    if (by_heart := _by_heart(e)) is not None:
        return by_heart
    if e.trained < PATIENCE or not e.has_not_learned(NOT_LEARNED) or e.progress == -math.inf:
        return None
    shrinks = held_back(e)
    progress = float(e.progress or 0.0)
    why = (
        "; the penalty on the weights shrinks them"
        if shrinks
        else "; the data may be hard, or its labels wrong"
    )
    return Finding(
        "not_learning",
        "warning",
        f"Not learning: the loss is {1 - progress:.3g} times"
        f" {'what it was at the start' if e.chance is None else 'that of a constant answer'}{why}",
        "progress",
        progress,
        NOT_LEARNED,
        margin(NOT_LEARNED, max(progress, 1e-3)),
        (),
        None,
        try_.known(
            e,
            try_.without_penalty(e) if shrinks else (),
            ("optimizer=adam",) if e.choice("optimizer") != "adam" else try_.learning_rate(e, 10.0),
            try_.normalized(e),
            try_.learning_rate(e, 10.0),
            try_.learning_rate(e, 0.1),
        ),
        {"weights_shrink": float(shrinks)},
    )

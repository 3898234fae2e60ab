"""What rules read of a run: plain arrays, made from its folder alone.

N recorded steps, L layers, M evaluations, T time steps. A number that is not there is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dlexp.errors import UserError
from dlexp.folder import METRICS, RECORDS, SUMMARY
from dlexp.written import is_recorded, read_lines, read_summary

Array = np.ndarray[Any, Any]
LAST = 0.1  # of the recorded steps: what they agree on is how the run ended
FEWEST = 3  # recorded steps that a median is taken of, where there are so many
SMALL_BATCH = 8  # samples
PLAYED = ("minimax", "non_saturating")  # losses of a game: that they do not fall says nothing
# What records say of a layer without numbers, as in dlexp/record/probes.py.
NO_GRADIENT, NOT_RUN = "no gradient", "the layer did not run, or returned no tensor"
EARLY = 0.1  # of all steps: before an optimizer has hidden how the network started


@dataclass(frozen=True)
class Evidence:
    """What is known of a run. Everything but the first six fields may be missing."""

    layers: tuple[str, ...]
    steps: Array  # (N,)
    loss: Array  # (N,), of batches; NaN or infinite where it was
    quantities: Mapping[str, Array]  # name -> (N, L), as in records.jsonl
    status: str = "finished"
    trained: int = 0  # steps that were made
    weighted: Array | None = None  # (L,) bool: has weights; None: all have
    fed: Array | None = None  # (L,) bool: a gradient came, on some step; None: to all
    absent: Array | None = None  # (L,) bool: never ran; None: none
    cells: Array | None = None  # (L,) bool: its runs are time steps
    kinds: tuple[str, ...] = ()  # class of each layer
    shapes: tuple[tuple[int, ...], ...] = ()  # of its weight
    activations: tuple[str | None, ...] = ()  # class of the module behind it
    looks: Mapping[tuple[str, str], Array] = field(default_factory=dict)  # (name, first or last) -> (L,)
    over_time: Mapping[tuple[str, int], Array] = field(default_factory=dict)  # (quantity, layer) -> (N, T)
    evaluated: Array = field(default_factory=lambda: np.zeros(0))  # (M,) steps
    validation: Array = field(default_factory=lambda: np.zeros(0))  # (M,) loss/validation
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # at the end, e.g. loss/train
    diverged: Mapping[str, Any] | None = None  # step, layer, reason
    restored: bool = False  # early stopping has put the best weights back: `metrics` are of them
    chance: float | None = None  # loss of the best constant answer
    zero: float | None = None  # loss of answering 0, where it is known
    inputs: tuple[float, float] | None = None  # mean and deviation of all inputs together
    choices: Mapping[str, str] | None = None  # group -> word; None: not made by dlexp
    config: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None

    @classmethod
    def of_run(cls, folder: str | Path, summary: Mapping[str, Any] | None = None) -> Evidence:
        """Of a run folder, also of one that is unfinished, has diverged or failed, or is of `dlexp.watch`.

        Args:
            summary: what summary.json will hold, of a run that is about to write it.

        Raises:
            UserError: it is not a run folder.
        """
        folder = Path(folder)
        if summary is None:
            if not is_recorded(folder):
                raise UserError(f"{folder}: not a run folder; it has neither {RECORDS} nor {SUMMARY}")
            summary = read_summary(folder)
        header, *lines = read_lines(folder / RECORDS) or [{"layers": [], "quantities": []}]
        return _evidence(summary, header, lines, read_lines(folder / METRICS))

    # -- which rows and which layers --------------------------------------------------------------------

    @cached_property
    def finite(self) -> Array:
        """(N,) bool: recorded steps before the first whose loss is not finite."""
        return np.logical_and.accumulate(np.isfinite(self.loss))

    @cached_property
    def hidden(self) -> Array:
        """Indices of the layers with weights, without the last of them, which answers, and embeddings."""
        found = [int(i) for i in self.running][:-1]
        return np.array([i for i in found if not self.kinds or "mbedding" not in self.kinds[i]], dtype=int)

    @cached_property
    def running(self) -> Array:
        """Indices of all layers with weights, the one that answers with them; not of those that never ran."""
        weighted = np.ones(len(self.layers), bool) if self.weighted is None else self.weighted
        return np.flatnonzero(weighted if self.absent is None else weighted & ~self.absent)

    @cached_property
    def learning(self) -> Array:
        """Indices of what a learning rate is judged by: hidden layers, without those that get no gradient.

        Where nothing hidden learns, what answers does, as of a linear model and behind a frozen network.
        """
        fed = np.ones(len(self.layers), bool) if self.fed is None else self.fed
        found = [self.hidden[fed[self.hidden]], self.running[fed[self.running]], self.hidden]
        return next((layers for layers in found if len(layers)), self.running)

    @cached_property
    def base(self) -> Array:
        """Indices of layers without a gradient in front of all that learn: a network frozen by design."""
        fed = np.ones(len(self.layers), bool) if self.fed is None else self.fed
        learns = np.flatnonzero(fed[self.running])
        return self.running[: learns[0]] if len(learns) else np.zeros(0, int)

    @cached_property
    def streams(self) -> Array:
        """Indices of the sums of residual blocks."""
        return np.zeros(0, int) if self.weighted is None else np.flatnonzero(~self.weighted)

    @cached_property
    def is_recurrent(self) -> bool:
        return self.cells is not None and bool(self.cells.any())

    def of(self, quantity: str, layers: Array | None = None) -> Array:
        """(n, l): of the steps whose loss is finite; of the hidden layers, unless others are named."""
        whole = self.quantities.get(quantity)
        if whole is None:
            whole = np.full((len(self.steps), len(self.layers)), np.nan)
        found: Array = whole[self.finite][:, self.hidden if layers is None else layers]
        return found

    def look(self, name: str, end: str, layers: Array | None = None) -> Array:
        """(l,): what was looked at, "first" or "last"."""
        whole = self.looks.get((name, end), np.full(len(self.layers), np.nan))
        found: Array = whole[self.hidden if layers is None else layers]
        return found

    def names(self, layers: Sequence[int] | Array) -> tuple[str, ...]:
        return tuple(self.layers[int(i)] for i in layers)

    @cached_property
    def early(self) -> Array:
        """Indices, among the steps whose loss is finite, of the first tenth of training."""
        steps = self.steps[self.finite]
        return np.flatnonzero(steps <= max(EARLY * self.trained, 2.0))

    # -- how well it learned ----------------------------------------------------------------------------

    @cached_property
    def level(self) -> float | None:
        """What a loss is compared with: that of the best constant answer, or else that of the first steps."""
        if self.chance is not None and self.chance > 0:
            return self.chance
        known = self.loss[self.finite]
        first = float(np.median(known[:FEWEST])) if len(known) else math.nan
        return first if first > 0 else None

    @cached_property
    def last_loss(self) -> float | None:
        """The median of the last recorded steps, or the loss of the whole training split where that is less.

        Batch norm and dropout make the two differ. The loss of a few samples says little: then it is
        the latter.
        """
        known = self.loss[self.finite]
        if not len(known):
            return None
        last = float(np.median(known[-max(FEWEST, round(LAST * len(known))) :]))
        whole = self.metrics.get("loss/train")
        size = self.value("train.batch_size")
        if isinstance(size, int) and size < SMALL_BATCH and whole is not None:
            return whole
        return last if whole is None else min(last, whole)

    @cached_property
    def progress(self) -> float | None:
        """1 where the loss has come down to 0, 0 where it is no better than that of a constant answer.

        None where it is not known; of a run that diverged, minus infinity.
        """
        if self.status == "diverged" or not self.finite.all():
            return -math.inf
        if self.level is None or self.last_loss is None or self.is_game:
            return None
        return (self.level - self.last_loss) / self.level

    @property
    def is_game(self) -> bool:
        """Do two networks play against each other, so that no loss has to fall?"""
        return self.choice("loss") in PLAYED

    @property
    def guess(self) -> float | None:
        """What it costs to guess among as many classes as the last layer has units, by cross-entropy.

        Of a network that dlexp did not make, whose loss nobody has told.
        """
        last = self.shapes[self.running[-1]] if len(self.shapes) and len(self.running) else ()
        if self.chance is not None or self.choices is not None or not last or last[0] < 2:
            return None
        return math.log(last[0])

    def learned(self, share: float) -> bool:
        """Has the loss come down by this share?"""
        return self.progress is not None and self.progress >= share

    def has_not_learned(self, share: float) -> bool:
        """Has it come down by less, for certain?"""
        return self.progress is not None and self.progress < share

    # -- the words that made it -------------------------------------------------------------------------

    def choice(self, group: str) -> str | None:
        return None if self.choices is None else self.choices.get(group)

    def value(self, key: str) -> Any:
        """Of the config, by a dotted key; None where there is none."""
        at: Any = self.config
        for part in key.split("."):
            at = at.get(part) if isinstance(at, Mapping) else None
        return at


def _evidence(
    summary: Mapping[str, Any],
    header: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
) -> Evidence:
    layers, quantities = tuple(header["layers"]), header["quantities"]
    told: Sequence[Mapping[str, Any]] = summary.get("layers") or []
    if len(told) != len(layers):
        told = [{} for _ in layers]
    facts = summary.get("facts") or {}
    mean, std = facts.get("input_mean"), facts.get("input_std")
    validation = [line for line in evaluations if "loss/validation" in line]
    config, data = summary.get("config") or {}, summary.get("data") or {}
    unfed = _told(lines, layers, "grad_norm", NO_GRADIENT)
    looks = {
        (name, end): _array([(layer.get(end) or {}).get(name) for layer in told])
        for name in summary.get("looks") or []
        for end in ("first", "last")
    }
    return Evidence(
        layers=layers,
        steps=np.array([line["step"] for line in lines], dtype=float),
        loss=_losses(lines),
        quantities={name: _table([line[name] for line in lines], len(layers)) for name in quantities},
        status=str(summary.get("status")),
        trained=int(summary.get("steps") or 0),
        weighted=np.array([layer.get("parameters") != 0 for layer in told], dtype=bool),
        fed=~unfed,
        absent=unfed & _told(lines, layers, "activation_rms", NOT_RUN),
        cells=np.array([bool(layer.get("is_cell")) for layer in told], dtype=bool),
        kinds=tuple(
            str(layer.get("kind") or name.partition("_")[2]) for layer, name in zip(told, layers, strict=True)
        ),
        shapes=tuple(tuple(layer.get("shape") or ()) for layer in told),
        activations=tuple(layer.get("activation") for layer in told),
        looks=looks,
        over_time=_series(lines, layers),
        evaluated=np.array([line["step"] for line in validation], dtype=float),
        validation=_array([line["loss/validation"] for line in validation]),
        metrics=summary.get("metrics") or {},
        diverged=summary.get("diverged"),
        restored=summary.get("restored_step") is not None,
        chance=facts.get("chance_loss"),
        zero=facts.get("zero_loss"),
        inputs=None if mean is None or std is None else (mean, std),
        choices=summary.get("choices"),
        config=config,
        classes=data.get("outputs"),
    )


def _array(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if x is None else x for x in values], dtype=float)


def _table(rows: Sequence[Sequence[float | None]], width: int) -> Array:
    return np.array(rows, dtype=float).reshape(-1, width)  # None becomes NaN


def _losses(lines: Sequence[Mapping[str, Any]]) -> Array:
    """(N,): what is null in the file is infinite or NaN, as its reason says."""
    found = _array([line.get("loss") for line in lines])
    for n, line in enumerate(lines):
        said = (line.get("reasons") or {}).get("loss")
        if said in ("inf", "-inf"):
            found[n] = float(said)
    return found


def _told(lines: Sequence[Mapping[str, Any]], layers: Sequence[str], quantity: str, reason: str) -> Array:
    """(L,): is this why there is no number of it, on all recorded steps?"""
    said = np.full(len(layers), bool(lines))
    for line in lines:
        why = (line.get("reasons") or {}).get(quantity) or [None] * len(layers)
        said &= np.array([own == reason for own in why], dtype=bool)
    return said


def _series(lines: Sequence[Mapping[str, Any]], layers: Sequence[str]) -> dict[tuple[str, int], Array]:
    """(quantity, layer) -> (N, T), of layers that had as many time steps in all records."""
    place = {name: i for i, name in enumerate(layers)}
    found: dict[tuple[str, int], list[Any]] = {}
    for line in lines:
        for quantity, of in (line.get("over_time") or {}).items():
            for name, values in of.items():
                found.setdefault((quantity, place[name]), []).append(values)
    alike = {
        at: rows for at, rows in found.items() if len(rows) == len(lines) and len(set(map(len, rows))) == 1
    }
    return {at: np.array(rows, dtype=float) for at, rows in alike.items()}


def theil_sen(x: Array, y: Array) -> float:
    """The median slope of all pairs of points: a layer that is unlike the others does not tilt it."""
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i]))) if len(i) else math.nan


def log10(values: Array) -> Array:
    """NaN where there is no logarithm."""
    with np.errstate(all="ignore"):
        return np.where(values > 0, np.log10(values), np.nan)

"""From what the rules find to one root cause; the rest is folded under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dlexp.diagnose import signals, training
from dlexp.diagnose.evidence import Evidence
from dlexp.diagnose.finding import Diagnosis, Finding
from dlexp.diagnose.training import FEW_STEPS, NOT_LEARNED, PATIENCE

Rule = Callable[[Evidence], Finding | None]

# Causes before what they cause: inputs and weights before the first step, then steps, then how it went. What
# stands behind is explained by what stands before: symmetry by itself makes units dead or saturated, an
# exploding signal a large first loss and a loss that is not finite, a learning rate late deaths.
ORDER: tuple[Rule, ...] = (
    signals.symmetric,
    signals.input_scale,
    signals.target_scale,
    signals.exploding,
    signals.born_dead,
    signals.saturated,
    signals.vanishing,
    signals.bad_init_scale,
    training.lr_too_high,
    signals.non_finite,
    signals.died,
    training.frozen_layer,
    training.lr_too_low,
    training.overfit,
    training.unstable_loss,
    training.not_learning,
)
LIKE_A_GUESS = 0.05  # this near to what guessing costs a network has learned nothing, or is of another kind
LATE = (signals.vanishing, signals.saturated)  # where they begin with training, its steps made them so


def findings(e: Evidence, order: Sequence[Rule] = ORDER) -> list[Finding]:
    """What the rules find, root cause first; what does no harm comes last."""
    found = [(rule, finding) for rule in order if (finding := rule(e)) is not None]
    ids = {finding.id for _, finding in found}

    def place(item: tuple[Rule, Finding]) -> tuple[bool, float]:
        rule, finding = item
        return finding.severity == "info", _behind(rule, finding, ids)

    return [finding for _, finding in sorted(found, key=place)]


def _behind(rule: Rule, finding: Finding, ids: set[str]) -> float:
    """Where a finding stands among causes: in the order of the rules, but for three that depend on others."""
    if finding.since and rule in LATE and "lr_too_high" in ids:
        return ORDER.index(training.lr_too_high) + 0.5
    if rule is signals.born_dead and "vanishing" in ids and not finding.numbers["certain"]:
        return ORDER.index(signals.vanishing) + 0.5  # where a signal fades some units are lost, too
    if rule is training.not_learning and finding.numbers["weights_shrink"]:
        return ORDER.index(training.lr_too_high) - 0.5  # of weights near 0 every step is a large share
    return ORDER.index(rule)


def diagnose(e: Evidence, order: Sequence[Rule] = ORDER) -> Diagnosis:
    """One root cause of what a run suffers from, or that there is none, or that nobody can tell."""
    if not len(e.steps):
        return Diagnosis("cannot_tell", "none", "Cannot tell: nothing was recorded.")
    found = findings(e, order)
    folded = [{"id": one.id, "sentence": f"{one.sentence}."} for one in found]
    if not found or found[0].severity == "info":
        return _no_fault(e, folded)
    root = found[0]
    first, *further = [*root.remedies, ()]
    tried = f" Try: {' '.join(first)}" if first else ""
    evidence: dict[str, Any] = {
        "quantity": root.quantity,
        "value": _finite(root.value),
        "threshold": _finite(root.threshold),
        "layer": root.layers[0] if root.layers else None,
        **{name: _finite(x) for name, x in root.numbers.items()},
    }
    return Diagnosis(
        root.id,
        root.severity,
        f"{root.sentence}.{tried}",
        list(root.layers),
        root.since,
        round(root.margin, 4),
        evidence,
        folded[1:],
        list(first),
        [list(words) for words in further if words],
    )


def _no_fault(e: Evidence, folded: list[dict[str, str]]) -> Diagnosis:
    severity = "info" if folded else "none"
    if e.trained < FEW_STEPS or (e.trained < PATIENCE and e.has_not_learned(NOT_LEARNED)):
        said = f"Cannot tell: {e.trained} step{'s' if e.trained != 1 else ''} of training are too few."
        return Diagnosis("cannot_tell", severity, said, folded=folded)
    if e.progress is None or e.progress < NOT_LEARNED:
        return Diagnosis("cannot_tell", severity, f"Cannot tell: {_unknown(e)}.", folded=folded)
    if e.guess is not None and e.last_loss is not None and abs(e.last_loss / e.guess - 1) < LIKE_A_GUESS:
        said = (
            f"Cannot tell: the loss is {e.last_loss:.3g}; if it is cross-entropy, that is what guessing among"
            f" {round(math.exp(e.guess))} classes costs ({e.guess:.3g})."
        )
        return Diagnosis("cannot_tell", severity, said, folded=folded)
    unseen = "" if len(e.validation) else " Without loss/validation nobody can tell whether it overfits."
    of = " of what it was at the start" if e.chance is None else ""
    said = f"No fault found: the loss has come down by {e.progress:.0%}{of}.{unseen}"
    return Diagnosis("healthy", severity, said, folded=folded)


def _unknown(e: Evidence) -> str:
    if e.progress is None:
        return "what a constant answer would get is not known"
    return "the network has too few hidden layers for what these rules look at"


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None

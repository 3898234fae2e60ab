"""What rules find, and what is made of it: plain data, without numpy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

IDS = (
    *("healthy", "cannot_tell", "non_finite", "symmetric", "exploding", "vanishing", "dead_units"),
    *("saturated", "bad_init_scale", "input_scale", "lr_too_high", "lr_too_low", "unstable_loss"),
    *("overfit", "frozen_layer", "not_learning"),
)
SEVERITIES = ("none", "info", "warning", "critical")

Words = tuple[str, ...]  # of a command line, e.g. ("activation=relu", "initializer=kaiming_normal")


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    id: str  # one of IDS
    severity: str  # one of SEVERITIES; "info": a fact that does no harm
    sentence: str  # without a full stop
    quantity: str  # what was measured, e.g. "decades of delta_rms"
    value: float
    threshold: float
    margin: float  # how far beyond the threshold, in decades: log10 of their ratio, 0 or more
    layers: tuple[str, ...] = ()
    since: int | None = None  # the recorded step from which on it has been so
    remedies: tuple[Words, ...] = ()  # what to try, first the best
    numbers: dict[str, float] = field(default_factory=dict)  # more evidence


@dataclass(frozen=True)
class Diagnosis:
    """What a run suffers from, one root cause, and what to try."""

    primary: str  # one of IDS
    severity: str  # one of SEVERITIES
    sentence: str
    layers: list[str] = field(default_factory=list)
    since: int | None = None  # step
    confidence: float | None = None  # of a cause: margin to its threshold in decades
    evidence: dict[str, Any] = field(default_factory=dict)  # quantity, value, threshold, layer, ...
    folded: list[dict[str, str]] = field(default_factory=list)  # what the cause explains: id, sentence
    override: list[str] = field(default_factory=list)  # words for dlexp, to be tried first
    further: list[list[str]] = field(default_factory=list)  # to be tried next

    @property
    def tries(self) -> list[list[str]]:
        """All that is to be tried, the first one first."""
        return [self.override, *self.further] if self.override else []

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for summary.json."""
        return asdict(self)


def as_markdown(found: Diagnosis) -> str:
    """A page for TensorBoard's Text tab."""
    parts = [f"**{found.primary}** ({found.severity})", found.sentence]
    parts += [f"- explains {one['id']}: {one['sentence']}" for one in found.folded]
    numbers = [
        f"{name} {x:.4g}" if isinstance(x, float) else f"{name} {x}" for name, x in found.evidence.items()
    ]
    parts += [f"evidence: {', '.join(numbers)}"] if numbers else []
    parts += [f"- `{' '.join(words)}`" for words in found.tries]
    return "\n\n".join(parts) + "\n"

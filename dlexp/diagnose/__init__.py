"""What went wrong in a run, from its record alone: one root cause, the evidence, and words to try."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlexp.diagnose.finding import IDS, SEVERITIES, Diagnosis, Finding

if TYPE_CHECKING:
    from dlexp.diagnose.evidence import Evidence

__all__ = ["IDS", "SEVERITIES", "Diagnosis", "Finding", "diagnose", "of_run"]


def diagnose(evidence: Evidence) -> Diagnosis:
    """What a run suffers from, by `Evidence.of_run` or arrays of one's own."""
    from dlexp.diagnose import order  # numpy is loaded here, not at the start

    return order.diagnose(evidence)


def of_run(folder: str | Path) -> Diagnosis:
    """The same of a run folder, also of one that is unfinished or of `dlexp.watch`.

    Raises:
        UserError: it is not a run folder.
    """
    from dlexp.diagnose.evidence import Evidence

    return diagnose(Evidence.of_run(folder))

"""What went wrong in a run, from its record alone: one root cause, the evidence, and words to try."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlexp.diagnose.finding import IDS, SEVERITIES, Diagnosis, Finding, as_markdown

if TYPE_CHECKING:
    from dlexp.diagnose.evidence import Evidence


class Board(Protocol):
    """Where a text goes."""

    def text(self, tag: str, markdown: str) -> None: ...


__all__ = ["IDS", "SEVERITIES", "Diagnosis", "Finding", "diagnose", "judge", "of_run"]


def diagnose(evidence: Evidence) -> Diagnosis:
    """What a run suffers from, by `Evidence.of_run` or arrays of one's own."""
    from dlexp.diagnose import order  # numpy is loaded here, not at the start

    return order.diagnose(evidence)


def of_run(folder: str | Path, summary: Mapping[str, Any] | None = None) -> Diagnosis:
    """The same of a run folder, also of one that is unfinished or of `dlexp.watch`.

    Args:
        summary: what summary.json will hold, of a run that is about to write it.

    Raises:
        UserError: it is not a run folder.
    """
    from dlexp.diagnose.evidence import Evidence

    return diagnose(Evidence.of_run(folder, summary))


def judge(folder: Path, summary: dict[str, Any], board: Board | None) -> None:
    """Put the diagnosis into the summary of a run that has just ended, and as a text into TensorBoard."""
    found = of_run(folder, summary)
    summary["diagnosis"] = found.as_dict()
    if board:
        board.text("diagnosis", as_markdown(found))

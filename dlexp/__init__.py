"""dlexp turns notes about deep learning into measurements.

    import dlexp

    result = dlexp.run(["model.depth=20", "activation=sigmoid"])
    result.layers     # a row per layer: first and last recorded
    result.records    # a row per recorded step and layer

Importing the package loads neither torch nor pandas: both come in when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from dlexp.report.load import Run
    from dlexp.report.sweep import Sweep

__version__ = "0.1.0"
__all__ = ["load", "load_sweep", "plots", "run"]


def __getattr__(name: str) -> ModuleType:
    """`dlexp.plots` without an import of its own, and not before it is used."""
    if name == "plots":
        import importlib

        return importlib.import_module("dlexp.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, quiet: bool = False) -> Run:
    """Train the network that `overrides` describe and return what was recorded.

    Args:
        overrides: the words of the command line, e.g. `["model.depth=20", "activation=sigmoid"]`.
        config_dir: a folder with choices of your own, as `--config-dir` on the command line.
        quiet: print nothing.

    Returns:
        The finished run: `.summary` (a dict), `.layers`, `.records` and `.metrics` (DataFrames).

    Raises:
        dlexp.errors.UserError: a word or value cannot be used; the text says what is allowed.
    """
    from dlexp import compose, runner

    with compose.ONE_AT_A_TIME:
        return runner.run(compose.compose(overrides, config_dir), quiet=quiet)


def load(folder: str | Path) -> Run:
    """The record in `folder`, as `run` returned it; also of a run that is still going or was killed."""
    from dlexp.report.load import Run

    return Run(folder)


def load_sweep(folder: str | Path) -> Sweep:
    """The runs in the folder of a sweep, also of one that is still going or was killed.

    Returns:
        The sweep: `.runs` (a row per run) and `.arms` (a row per combination, seeds folded; DataFrames).

    Raises:
        dlexp.errors.UserError: it is no such folder.
    """
    from dlexp.report.sweep import Sweep

    return Sweep(folder)

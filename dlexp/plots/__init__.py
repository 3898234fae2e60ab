"""Pictures of what dlexp.load and dlexp.load_sweep return: each takes DataFrames, gives a matplotlib Figure.

    run = dlexp.load("outputs/mlp_digits/2026-11-21_10-15-00")
    dlexp.plots.signature(run.records)
    dlexp.plots.signature(run.records, step=0).savefig("start.png")

Figures are independent of pyplot, so nothing has to be closed, and a notebook shows the last one of a cell.
"""

from dlexp.plots.classes import confusion, samples
from dlexp.plots.depth import history, signature
from dlexp.plots.steps import learning_curves, over_time
from dlexp.plots.swept import arms, colours

__all__ = ["arms", "colours", "confusion", "history", "learning_curves", "over_time", "samples", "signature"]

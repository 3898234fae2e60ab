"""What an experiment is: a question, runs that answer it, claims judged by them, a picture.

A page of the notebook, experiments/<slug>.py, makes an `Experiment` and gives it claims; the rules of
evidence are in verdict.py, what a claim can ask of runs in runs.py. This package loads no PyTorch.
"""

from dlexp.lab.experiment import Experiment
from dlexp.lab.runs import Arm, Run, Runs, accuracy
from dlexp.lab.verdict import (
    Verdict,
    all_of,
    at_least,
    at_most,
    changes,
    exceeds,
    fact,
    given,
    identity,
    matters,
    minus,
    near,
    over,
)

__all__ = [
    "Arm",
    "Experiment",
    "Run",
    "Runs",
    "Verdict",
    "accuracy",
    "all_of",
    "at_least",
    "at_most",
    "changes",
    "exceeds",
    "fact",
    "given",
    "identity",
    "matters",
    "minus",
    "near",
    "over",
]

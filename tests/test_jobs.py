"""Many runs in one process: nothing of a finished run stays behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.errors import UserError

pytestmark = pytest.mark.usefixtures("drawn")


def _alive() -> int:
    """Tensors and modules of this process."""
    gc.collect()
    return sum(issubclass(type(thing), (torch.Tensor, torch.nn.Module)) for thing in gc.get_objects())


@pytest.mark.parametrize(
    "words",
    [
        ["stopping=early", "clip=norm", "scheduler=plateau", "augmentation=shift", "train.keep_weights=true"],
        ["model=lstm", "data=recall", "regularizer=max_norm"],
        ["model=custom", "model._target_=no.such.thing"],
    ],
    ids=["mlp", "lstm", "refused"],
)
def test_nothing_of_a_run_stays(tmp_path: Path, words: list[str]) -> None:
    def run() -> int:
        try:
            dlexp.run([*words, "train.max_steps=2", "device=cpu", f"outputs={tmp_path}"], quiet=True)
        except UserError:
            assert words[0] == "model=custom"
        return _alive()

    gc.collect()
    gc.freeze()  # what there is already is not counted, which would take longer than the runs
    first = run()
    assert [run(), run()] == [first, first]

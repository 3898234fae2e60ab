"""The lookup table knows by heart what it saw, and of the rest what is nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.build.assemble import Parts, assemble
from dlexp.build.lookup import Lookup
from dlexp.compose import compose
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError


def parts(*words: str) -> Parts:
    return assemble(compose(["model=lookup", *words]), torch.device("cpu"))


def test_the_nearest_is_scikit_learn_s() -> None:
    """All test digits, by KNeighborsClassifier with one neighbour."""
    from sklearn.neighbors import KNeighborsClassifier

    made = parts()
    train, test = made.data.train, made.data.test
    peer = KNeighborsClassifier(n_neighbors=1).fit(train.inputs.flatten(1).numpy(), train.targets.numpy())
    found = made.model(test.inputs)
    assert found.sum(dim=1).tolist() == [1.0] * len(test)
    assert found.argmax(dim=1).tolist() == peer.predict(test.inputs.flatten(1).numpy()).tolist()


def test_an_exact_table_knows_what_it_saw_and_nothing_else() -> None:
    """All training digits right, and no score for any of the test digits, none of which it saw."""
    made = parts("model.exact=true")
    train = made.data.train
    assert torch.equal(made.model(train.inputs).argmax(dim=1), train.targets)
    assert not made.model(made.data.test.inputs).any()


def test_targets_that_are_numbers_are_given_back() -> None:
    """By hand: 0.9 and 1.2 are nearest to 1, and 5 to 3; unknown ones (NaN) are answered with 0."""
    inputs = torch.tensor([[1.0], [3.0]])
    split = Split(inputs, torch.tensor([[10.0, 0.5], [30.0, torch.nan]]))
    model = Lookup(Dataset(split, split, split, outputs=2, task="regression"), exact=False)
    asked = torch.tensor([[0.9], [1.2], [5.0]])
    assert model(asked).tolist() == [[10.0, 0.5], [10.0, 0.5], [30.0, 0.0]]


def test_there_is_nothing_to_learn(tmp_path: Path) -> None:
    run = dlexp.run(["model=lookup", f"outputs={tmp_path}"], quiet=True)
    assert (run.summary["status"], run.summary["steps"]) == ("finished", 0)
    assert run.summary["metrics"]["accuracy/test"] > 0.95


def test_tasks_without_an_answer_are_refused() -> None:
    text = (
        "model=lookup: has no answer to task=reconstruction; allowed: classification, binary, multi_label,"
        " regression"
    )
    with pytest.raises(UserError, match=f"^{text}$"):
        parts("task=reconstruction")

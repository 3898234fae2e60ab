"""The loss and the metrics follow from the task; the same data can be asked other questions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.check import check
from dlexp.build.task import TASKS, refuse_misfit, view
from dlexp.compose import CONFIGS, compose
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError

CPU = torch.device("cpu")
QUICK = ["train.max_steps=2", "model.width=8", "record.every=1"]


def small() -> Dataset:
    """Five samples in each split."""
    inputs = torch.arange(10.0).view(5, 2)
    split = Split(inputs, torch.tensor([0, 1, 2, 2, 1]))
    return Dataset(split, split, split, outputs=3)


def test_every_task_names_a_loss_and_metrics_there_are() -> None:
    """Files of configs/loss, functions of dlexp.train.metrics."""
    from dlexp.train.metrics import ALL

    for name, task in TASKS.items():
        assert (CONFIGS / "loss" / f"{task.loss}.yaml").is_file(), name
        assert set(task.metrics) <= set(ALL), name


def test_auto_is_the_question_that_comes_with_the_data() -> None:
    """Nothing is changed."""
    data = small()
    assert view(data, "auto") is data and view(data, "classification") is data


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        ("reconstruction", 2, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]),
        ("regression", 1, [[0], [1], [2], [2], [1]]),
        ("multi_label", 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]),
        ("binary", 1, [[0], [0], [1], [1], [0]]),
        ("embedding", 32, [0, 1, 2, 2, 1]),
    ],
)
def test_the_same_data_asked_otherwise(task: str, outputs: int, targets: list[float]) -> None:
    """Inputs stay, targets and the number of outputs become those of the task."""
    data = view(small(), task)
    assert (data.task, data.outputs) == (task, outputs)
    for split in (data.train, data.validation, data.test):
        assert split.targets.tolist() == targets
        assert torch.equal(split.inputs, small().train.inputs)


def test_a_question_that_targets_cannot_answer_is_refused() -> None:
    """With what can be asked."""
    with pytest.raises(UserError, match=r"^task=ranking: the data asks for classification; allowed: auto, "):
        view(small(), "ranking")


def test_loss_and_metrics_are_filled_in(tmp_path: Path) -> None:
    """`auto` becomes a word, in the summary and in the saved config; a named one stays."""
    run = dlexp.run([*QUICK, f"outputs={tmp_path}"], quiet=True)
    assert run.summary["choices"]["loss"] == "cross_entropy"
    assert run.summary["config"]["metrics"] == ["accuracy"]
    assert run.summary["config"]["loss"]["_target_"] == "torch.nn.CrossEntropyLoss"
    run = dlexp.run([*QUICK, "task=binary", "metrics=[f1]", f"outputs={tmp_path}"], quiet=True)
    assert run.summary["choices"]["loss"] == "binary_cross_entropy"
    assert {"f1/test", "loss/test", "f1/train"} <= set(run.summary["metrics"])
    assert "accuracy/test" not in run.summary["metrics"]
    assert {"loss", "f1"} <= set(run.records.columns)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["loss=mse"], r"^loss=mse: made for regression, .*; the task is classification$"),
        (
            ["head=sigmoid"],
            r"^loss=cross_entropy: takes linear or log_.*; head=sigmoid gives probabilities; ",
        ),
        (["metrics=[acuracy]"], r"^metrics=\[acuracy\]: no such metric; allowed: accuracy, "),
        (["metrics=[no_such.metric]"], r"^metrics=\[no_such.metric\]: cannot be imported: "),
        (["metrics=[ndcg]"], r"^metrics=\[ndcg\]: does not fit the task classification: "),
        (
            ["stopping=early", "stopping.monitor=f1/validation"],
            r"^stopping.monitor=f1/validation: not m",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], text: str) -> None:
    """Before anything is trained."""
    with pytest.raises(UserError, match=text):
        assemble(compose(words), CPU)


def test_a_loss_of_ones_own_is_not_judged() -> None:
    """A YAML file that says nothing of heads and tasks fits everything."""
    refuse_misfit("ranking", ("auto", "linear"), ("mine", None, None))
    refuse_misfit("ranking", ("mine", None), ("mine", ["linear"], ["ranking"]))


def test_a_module_of_ones_own_replaces_the_model(tmp_path: Path) -> None:
    """model._target_=...: values of the YAML file that it does not take are left out, and none is missed."""
    words = ["model._target_=torch.nn.Linear", "+model.in_features=8", "+model.out_features=10"]
    with pytest.raises(UserError, match=r"^model=mlp: mat1 and mat2 shapes|^loss=cross_entropy: "):
        assemble(compose(words), CPU)  # (2, 1, 8, 8) is no batch of eight features
    words = [f"model._target_={__name__}.Mine", "+model.hidden=7", *QUICK[::2], f"outputs={tmp_path}"]
    run = dlexp.run(words, quiet=True)
    assert [layer["path"] for layer in run.summary["layers"]] == ["inner", "outer"]
    assert run.summary["layers"][0]["shape"] == [7, 64]
    with pytest.raises(UserError, match=r"^model.hiden=7: model=mlp takes no such value"):
        assemble(compose([words[0], "+model.hiden=7"]), CPU)


class Mine(torch.nn.Module):
    """Somebody's own network: what it needs to know it takes by name."""

    def __init__(self, outputs: int, hidden: int = 5, bias: bool = True) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(64, hidden, bias=bias)
        self.outer = torch.nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.outer(torch.relu(self.inner(x.flatten(1))))
        return found


class Wide(torch.nn.Sequential):
    """Somebody's own network, whose width is a list."""

    def __init__(self, outputs: int, width: list[int], depth: int) -> None:
        assert depth == 0
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, width[0]), torch.nn.Linear(width[0], outputs)
        )


def test_rules_are_for_choices_that_dlexp_knows() -> None:
    """What width and depth of somebody's own class may be, dlexp does not know."""
    words = [f"model._target_={__name__}.Wide", "model.width=[9,64]", "model.depth=0"]
    check(compose(words))
    assert assemble(compose(words), CPU).model[1].out_features == 9
    with pytest.raises(UserError, match=r"^model.depth=0: allowed: "):
        check(compose(words[2:]))


def test_what_the_model_does_not_take_is_no_hyperparameter(tmp_path: Path) -> None:
    """A linear model has no activation: comparing runs by it would show what cannot be."""
    reader = {}
    for model in ("linear", "mlp"):
        words = [f"model={model}", "activation=tanh", f"outputs={tmp_path}", "train.max_steps=1"]
        run = dlexp.run(words, quiet=True)
        (path,) = run.folder.glob("events*")
        reader[model] = path.read_bytes().count(b"\nactivation\x12") + path.read_bytes().count(
            b"activation\x12"
        )
    assert reader["linear"] == 0 < reader["mlp"]


def test_parts_that_do_not_fit_leave_no_folder(tmp_path: Path) -> None:
    """A rehearsal finds out: here a network for other pictures."""
    words = [f"model._target_={__name__}.TooLarge", f"outputs={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=r"^model=mlp: (addmm: )?mat1 and mat2 shapes cannot be"):
        dlexp.run(words, quiet=True)
    assert not (tmp_path / "out").exists()


class TooLarge(torch.nn.Sequential):
    """A network for 28 x 28 pixels."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(784, 10))


def test_dropout_masks_do_not_depend_on_the_initial_weights(tmp_path: Path) -> None:
    """An initializer that draws nothing leaves the same masks as one that draws much."""
    masks = []
    for initializer in ("pytorch_default", "constant"):
        words = [f"initializer={initializer}", "dropout=standard", f"outputs={tmp_path}", "train.max_steps=1"]
        words += [f"dropout._target_={__name__}.Spy"]
        SEEN.clear()
        dlexp.run(words, quiet=True)
        masks.append([mask for mask in SEEN if mask.shape[0] == 64])
    assert len(masks[0]) == len(masks[1]) == 3
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


SEEN: list[torch.Tensor] = []


class Spy(torch.nn.Dropout):
    """Dropout that keeps its masks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = super().forward(torch.ones_like(x))
        if self.training:
            SEEN.append(mask)
        return x * mask


def test_nothing_to_learn_is_only_evaluated(tmp_path: Path) -> None:
    """A model without a parameter runs, takes no step, and is measured."""
    words = [f"model._target_={__name__}.Constant", f"outputs={tmp_path}"]
    run = dlexp.run(words, quiet=True)
    assert (run.summary["status"], run.summary["steps"], run.summary["layers"]) == ("finished", 0, [])
    assert run.summary["metrics"]["accuracy/test"] == pytest.approx(0.1, abs=0.1)
    assert len(run.metrics) == 1 and len(run.records) == 0


class Constant(torch.nn.Module):
    """Says 0 to everything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[0].expand(len(x), 10)

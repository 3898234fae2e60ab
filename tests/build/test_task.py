"""The loss and the metrics follow from the task; the same data can be asked other questions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import dlexp
from dlexp.build.assemble import assemble
from dlexp.build.check import check
from dlexp.build.task import TASKS, misfit, refuse_misfit, shapes, shortened, view
from dlexp.compose import CONFIGS, compose, notes
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
        assert {*task.metrics, *task.more} <= set(ALL), name


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
        (
            ["loss=mse"],
            (
                r"^loss=mse: made for regression, .*; the task is classification; allowed: auto, cross_ent.*,"
                r" hinge, log_loss, nll, softmax_mse$"
            ),
        ),
        (
            ["head=sigmoid"],
            (
                r"^loss=cross_entropy: takes linear or log_probabilities; head=sigmoid gives probabilities;"
                r" allowed: head=auto, head=linear, head=log_softmax, loss=log_loss$"
            ),
        ),
        (
            ["loss=nll", "head=softmax"],
            (
                r"^loss=nll: takes log_probabilities; head=softmax gives probabilities;"
                r" allowed: head=log_softmax, loss=log_loss$"
            ),
        ),
        (
            ["metrics=[acuracy]"],
            r"^metrics=\[acuracy\]: no such metric; did you mean accuracy\?; allowed: accuracy, .*, ece$",
        ),
        (["metrics=[no_such.metric]"], r"^metrics=\[no_such.metric\]: there is no module no_such; "),
        (["metrics=[ndcg]"], r"^metrics=\[ndcg\]: does not fit the task classification; allowed: accuracy, "),
        (
            ["task=regression", "metrics=[accuracy]"],
            r"^metrics=\[accuracy\]: does not fit the task regression; allowed: rmse, mae, mse, rounded_acc",
        ),
        (
            ["task=adversarial", "model=gan", "metrics=[modes_covered]"],
            r"^metrics=\[modes_covered\]: does not fit data=digits: the data has no facts.centres",
        ),
        (
            ["data=ring"],
            (
                r"^model=mlp: does not fit data=ring \(adversarial: inputs \(B, 2\), outputs \(B, 5\)\):"
                r" returns \(B, 2\); allowed: gan$"
            ),
        ),
        (
            ["data=digit_strings", "data.samples=20", "train.batch_size=4"],
            (
                r"^model=mlp: does not fit data=digit_strings \(transcription: inputs \(B, 1, 12, 56\),"
                r" outputs \(B, any, 11\)\): returns \(B, 11\); allowed: crnn$"
            ),
        ),
        (
            ["+loss._target_=torch.nn.CrossEntropyLoss", "+loss.reduction=none"],
            r"^loss._target_=torch.nn.CrossEntropyLoss: gives a Tensor of shape \(2,\); allowed: one number,",
        ),
        (
            ["data=moons", "head=softmax"],
            r"^head=softmax: over one output it is always 1; allowed: head=auto, .*, head=sigmoid, ",
        ),
        (["data=moons", "head=log_softmax"], r"^head=log_softmax: over one output it is always 0; "),
        (["data=sine", "head=hardmax"], r"^head=hardmax: over one output it is always 1; "),
        (
            ["task=multi_label", "loss=bce"],
            r"^loss=bce: takes probabilities; head=auto gives linear; allowed: head=sigmoid, loss=",
        ),
        (["train.target=1.5", "train.target_metric=loss/validation", "metrics=[ndcg]"], "^metrics"),
        (
            ["train.target=-1", "metrics=[error_rate]"],
            r"^train.target=-1: error_rate/validation is a share; ",
        ),
        (["model=deep_linear", "activation.negative_slope=1", "activation=leaky_relu"], "^activation=leaky"),
        (
            ["model=custom", f"model._target_={__name__}.Needy"],
            r"^model._target_=.*Needy: needs a value of hidden, more; type \+model.hidden=VALUE \+model.mo",
        ),
        (
            ["model=custom", f"model._target_={__name__}.Broken"],
            (
                r"^model._target_=.*Broken: forward raised AttributeError: 'Broken' object has no attribute"
                r" 'no_such' \(HYDRA_FULL_ERROR=1 shows the trace\)$"
            ),
        ),
        (
            ["model=custom", f"model._target_={__name__}.Broken", "+model.hidden=null"],
            r"^model._target_=.*Broken: ValueError: null \(HYDRA_FULL_ERROR=1 shows the trace\)$",
        ),
        (
            ["model=custom", f"model._target_={__name__}.Mine", "model.hidden=7"],
            r"^model.hidden=7: no such key; type \+model.hidden=7$",
        ),
        (
            ["train.batch_size=2000"],
            (
                r"^train.batch_size=2000: .* data=digits; allowed: all or 1 to 1257, for example"
                r" train.batch_size=1257$"
            ),
        ),
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
    refuse_misfit("ranking", ("auto", "linear"), ("mine", None, None), notes)
    refuse_misfit("ranking", ("mine", None), ("mine", ["linear"], ["ranking"]), notes)
    words = ["loss=mse", "loss._target_=torch.nn.CrossEntropyLoss"]  # the notes of mse say nothing of it
    assert isinstance(assemble(compose(words), CPU).loss, torch.nn.CrossEntropyLoss)


def test_what_is_allowed_is_true() -> None:
    """Every pair of head and loss is either taken, or refused with choices that are taken."""
    known = {"head": notes("head"), "loss": notes("loss")}  # read once, not for each of 3000 refusals
    heads, losses = known.values()
    for task in TASKS:
        for loss in (word for word, about in losses.items() if about):
            for head in heads:
                chosen = (head, heads[head]["gives"]), (loss, losses[loss]["takes"], losses[loss]["tasks"])
                try:
                    refuse_misfit(task, *chosen, known.__getitem__)
                except UserError as error:
                    assert len(str(error)) <= 200
                    for word in str(error).partition("; allowed: ")[2].removesuffix(" ...").split(", "):
                        group, _, choice = word.rpartition("=")
                        other = losses[choice if group == "loss" else loss]
                        gives = heads[choice if group == "head" else head]["gives"]
                        if group:
                            assert gives in other["takes"] and task in other["tasks"], error
                        else:
                            assert choice == "auto" or task in losses[choice]["tasks"], error


def test_a_long_line_is_cut_between_words() -> None:
    """At 200 characters."""
    assert shortened("x" * 200) == "x" * 200
    line = "allowed: " + ", ".join(["word"] * 60)
    cut = shortened(line)
    assert 190 < len(cut) <= 200 and cut.endswith("word ...") and line.startswith(cut.removesuffix(" ..."))


@pytest.mark.parametrize(
    ("task", "shape", "wrong"),
    [
        ("classification", (5, 3), ""),
        ("classification", (5, 1000), ""),  # a network for more classes
        ("classification", (5, 2), "returns (B, 2)"),
        ("classification", (5,), "returns (B)"),
        ("classification", (1, 3), "returns (1, 3)"),
        ("classification", (5, 4, 3), "returns (B, 4, 3)"),
        ("binary", (5, 1), ""),
        ("binary", (5,), "returns (B)"),
        ("binary", (5, 2), "returns (B, 2)"),
        ("multi_label", (5, 4), "returns (B, 4)"),
        ("reconstruction", (5, 2), ""),
        ("reconstruction", (5, 2, 1), "returns (B, 2, 1)"),
        ("embedding", (5, 7), ""),
        ("adversarial", (5, 5), ""),
        ("adversarial", (5, 2), "returns (B, 2)"),
    ],
)
def test_what_a_network_has_to_return(task: str, shape: tuple[int, ...], wrong: str) -> None:
    """As the table of tasks has it; where there are classes, more of them do no harm."""
    assert misfit(torch.zeros(shape), 5, view(small(), task)) == wrong


def test_sequences_have_an_answer_for_each_step() -> None:
    """(B, T, K); how many columns a text has is up to the network that reads it."""
    split = Split(torch.zeros(5, 4, 2), torch.zeros(5, 4, dtype=torch.int64))
    labelled = Dataset(split, split, split, outputs=3, task="sequence_labelling")
    assert misfit(torch.zeros(5, 4, 3), 5, labelled) == "" and misfit(torch.zeros(5, 3), 5, labelled)
    assert shapes(labelled) == "sequence_labelling: inputs (B, 4, 2), outputs (B, 4, 3)"
    text = Dataset(split, split, split, outputs=3, task="transcription")
    assert misfit(torch.zeros(5, 9, 3), 5, text) == "" and misfit(torch.zeros(5, 9, 2), 5, text)
    assert misfit((torch.zeros(5, 3), 1), 5, labelled) == "returns a tuple; must return one tensor"
    assert misfit({"z": 1}, 5, labelled) == "returns a dict; must return one tensor"


def test_a_module_of_ones_own_replaces_the_model(tmp_path: Path) -> None:
    """model._target_=...: values of the YAML file that it does not take are left out, and none is missed."""
    words = ["model._target_=torch.nn.Linear", "+model.in_features=8", "+model.out_features=10"]
    with pytest.raises(UserError, match=r"^model._target_=torch.nn.Linear: does not fit data=digits "):
        assemble(compose(words), CPU)  # (2, 1, 8, 8) is no batch of eight features
    words = [f"model._target_={__name__}.Mine", "+model.hidden=7", *QUICK[::2], f"outputs={tmp_path}"]
    run = dlexp.run(words, quiet=True)
    assert [layer["path"] for layer in run.summary["layers"]] == ["inner", "outer"]
    assert run.summary["layers"][0]["shape"] == [7, 64]
    with pytest.raises(UserError, match=r"^model.hiden=7: model._target_=.*Mine takes no such value"):
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


class Needy(Mine):
    """Somebody's own network that cannot do without two values."""

    def __init__(self, outputs: int, hidden: int, *, more: int) -> None:
        super().__init__(outputs, hidden)


class Broken(Mine):
    """Somebody's own network with a mistake in it."""

    def __init__(self, outputs: int, hidden: int | None = 3) -> None:
        if hidden is None:
            raise ValueError("null")
        super().__init__(outputs, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.no_such(x)
        return found


def test_the_default_activation_can_be_named_for_every_model() -> None:
    """In a sweep over activations and models, say."""
    assert assemble(compose(["model=linear", "activation=relu"]), CPU).used == ()
    assert assemble(compose(["model=linear", "train.target=0.9"]), CPU).milestone is not None
    assert assemble(compose(["train.target=3", "train.target_metric=loss/validation"]), CPU).milestone


def test_a_small_training_split_is_one_batch() -> None:
    """Where no number was typed: the default is larger than the data."""
    parts = assemble(compose(["data=iris", "data.validation=0.4", "data.test=0.4", "train.epochs=2"]), CPU)
    assert (parts.batch_size, parts.steps, len(parts.data.train)) == (30, 2, 30)
    assert parts.request.config.train.batch_size == 30


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
        words = [f"model={model}", f"outputs={tmp_path}", "train.max_steps=1"]
        run = dlexp.run(words, quiet=True)
        (path,) = run.folder.glob("events*")
        reader[model] = path.read_bytes().count(b"\nactivation\x12") + path.read_bytes().count(
            b"activation\x12"
        )
    assert reader["linear"] == 0 < reader["mlp"]


def test_parts_that_do_not_fit_leave_no_folder(tmp_path: Path) -> None:
    """A rehearsal finds out: here a network for other pictures."""
    words = [f"model._target_={__name__}.TooLarge", f"outputs={tmp_path / 'out'}"]
    shown = re.escape(
        f"{words[0]}: does not fit data=digits (classification: inputs (B, 1, 8, 8), outputs (B, 10)): "
    )
    with pytest.raises(UserError, match=rf"^{shown}(addmm: )?mat1 and mat2 shapes cannot be"):
        dlexp.run(words, quiet=True)
    for name, what in (("Few", r"returns \(B, 3\)"), ("Two", "returns a tuple; must return one tensor")):
        with pytest.raises(UserError, match=rf"^model._target_=.*{name}: does not fit .*: {what}$"):
            dlexp.run([f"model._target_={__name__}.{name}", words[1]], quiet=True)
    for group, name in (("model", "no_network"), ("model", "NoModule"), ("head", "NoModule")):
        with pytest.raises(
            UserError, match=rf"^{group}._target_=.*{name}: gives a \w+, is no torch.nn.Module$"
        ):
            dlexp.run([f"{group}._target_={__name__}.{name}", words[1]], quiet=True)
    assert not (tmp_path / "out").exists()


class Few(torch.nn.Sequential):
    """A network for three classes."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 3))


class Two(Mine):
    """Returns more than its answer."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:  # type: ignore[override]
        return super().forward(x), 3


class NoModule:
    """Has nothing of a network."""


def no_network() -> str:
    return "abc"


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
    assert len(masks[0]) == len(masks[1]) >= 3  # of the step, and of those who look at its batch
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

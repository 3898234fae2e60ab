"""What is asked of a network: the loss and metrics that go with a task, and other tasks for the same data.

B batch, T time steps, K outputs, I items in a list, L length of a text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError


@dataclass(frozen=True)
class Task:
    """A kind of question, and what to use for it unless something else is named."""

    targets: str  # their shape and meaning
    outputs: str  # the shape of what a network gives
    loss: str  # a choice of configs/loss
    metrics: tuple[str, ...]  # names in dlexp.train.metrics; the first one is shown while training
    more: tuple[str, ...] = ()  # other metrics that have a meaning
    models: str = ""  # what to try if a model does not fit


DECISIONS = ("accuracy", "error_rate", "zero_one", "precision", "recall", "f1", "auc", "ece")
DISTANCES = ("rmse", "mae", "mse")
IN_SEQUENCE = (*DECISIONS, "sequence_accuracy", "bits_per_character")

TASKS = {
    "classification": Task("(B,) class indices", "(B, K)", "cross_entropy", ("accuracy",), DECISIONS),
    "binary": Task(
        "(B, 1), 0 or 1", "(B, 1)", "binary_cross_entropy", ("accuracy",), (*DECISIONS, *DISTANCES)
    ),
    "multi_label": Task(  # each of the B * K answers counts by itself, in the loss and in the metrics
        "(B, K), 0 or 1, NaN if unknown",
        "(B, K)",
        "binary_cross_entropy",
        ("accuracy",),
        (*DECISIONS, *DISTANCES),
    ),
    "regression": Task("(B, K)", "(B, K)", "mse", ("rmse", "mae"), ("mse", "rounded_accuracy")),
    "sequence_labelling": Task(
        "(B, T) class indices", "(B, T, K)", "cross_entropy", ("accuracy",), IN_SEQUENCE, "rnn, lstm, gru"
    ),
    "language_modelling": Task(
        "(B, T) tokens",
        "(B, T, K)",
        "cross_entropy",
        ("accuracy", "bits_per_character"),
        IN_SEQUENCE,
        "char_lm, rnn, lstm, gru",
    ),
    "transcription": Task(
        "(B, L) symbols, 0 behind the end", "(B, T, K)", "ctc", ("exact_match",), models="crnn"
    ),
    "ranking": Task("(B, I) relevance", "(B, I)", "listnet", ("ndcg",), DISTANCES),
    "embedding": Task(
        "(B,) class indices", "(B, K)", "triplet", ("nearest_neighbour",), models="embedding_net"
    ),
    "reconstruction": Task(
        "(B, K) the clean inputs", "(B, K)", "mse", ("rmse",), DISTANCES, "denoising_autoencoder"
    ),
    "adversarial": Task(
        "(B, D) real samples",
        "(B, 3 + D)",
        "non_saturating",
        ("fooled",),
        ("modes_covered", "two_sample"),
        "gan",
    ),
}


def view(data: Dataset, task: str) -> Dataset:
    """The same samples with another question.

    Args:
        task: "auto" for the question that comes with the data, or a name in `TASKS`.

    Raises:
        UserError: the targets do not say what the task asks for.
    """
    if task in ("auto", data.task):
        return data
    change = _VIEWS.get((data.task, task)) or _VIEWS.get(("any", task))
    if change is None or not (data.vocabulary is None or data.task == task):
        possible = sorted({to for source, to in _VIEWS if source in (data.task, "any")} | {data.task})
        raise UserError(f"task={task}: the data asks for {data.task}; allowed: auto, {', '.join(possible)}")
    return replace(change(data), task=task)


def _retarget(
    outputs: Callable[[Dataset], int], targets: Callable[[Dataset, Split], torch.Tensor]
) -> Callable[[Dataset], Dataset]:
    def change(data: Dataset) -> Dataset:
        changed = data.map(lambda split: replace(split, targets=targets(data, split)))
        return replace(changed, outputs=outputs(data))

    return change


def _size(data: Dataset) -> int:
    return data.train.inputs[0].numel()


def _flat(data: Dataset, split: Split) -> torch.Tensor:
    return split.inputs.flatten(1)


_VIEWS: dict[tuple[str, str], Callable[[Dataset], Dataset]] = {
    ("any", "reconstruction"): _retarget(_size, _flat),
    ("any", "adversarial"): _retarget(_size, _flat),
    ("classification", "embedding"): lambda data: replace(data, outputs=32),
    # one number for the index of the class: the wrong way to treat categories, as a contrast
    ("classification", "regression"): _retarget(lambda _: 1, lambda _, s: s.targets.float().unsqueeze(1)),
    # one question for each class: is it this one?
    ("classification", "multi_label"): _retarget(
        lambda data: data.outputs, lambda data, s: functional.one_hot(s.targets, data.outputs).float()
    ),
    # is it the last class?
    ("classification", "binary"): _retarget(
        lambda _: 1, lambda data, s: (s.targets == data.outputs - 1).float().unsqueeze(1)
    ),
    ("binary", "classification"): _retarget(lambda _: 2, lambda _, s: s.targets.squeeze(1).long()),
}


COMPETING = ("softmax", "log_softmax", "hardmax")  # heads that set outputs against each other
SEPARATE = ("binary", "multi_label", "regression")  # tasks whose outputs are answers of their own

Notes = Mapping[str, Mapping[str, Any]]  # choice -> what its YAML file says of what it fits


def refuse_misfit(
    task: str,
    head: tuple[str, str | None],
    loss: tuple[str, object, object],
    known: Callable[[str], Notes],
) -> None:
    """Refuse a loss that has no use for what the head gives or the task asks for.

    Args:
        head: its choice and the `gives` of its YAML file.
        loss: its choice, and the `takes` and `tasks` of its YAML file; None: nothing is known.
        known: the notes of all choices of a group; asked for what would fit.

    Raises:
        UserError: they do not go together.
    """
    (head_choice, gives), (loss_choice, takes, tasks) = head, loss
    wrong_task = isinstance(tasks, list) and task not in tasks
    if not wrong_task and not (isinstance(takes, list) and gives is not None and gives not in takes):
        return
    losses = {word: notes for word, notes in known("loss").items() if task in notes.get("tasks", ())}
    if wrong_task:
        assert isinstance(tasks, list)
        raise UserError(
            shortened(
                f"loss={loss_choice}: made for {', '.join(tasks)}; the task is {task};"
                f" allowed: auto{''.join(f', {word}' for word in losses)}"
            )
        )
    assert isinstance(takes, list)
    heads = {word: notes for word, notes in known("head").items() if notes.get("gives") in takes}
    if task in SEPARATE:
        heads = {word: notes for word, notes in heads.items() if word not in COMPETING}
    fitting = [f"head={word}" for word in heads]
    fitting += [f"loss={word}" for word, notes in losses.items() if gives in notes.get("takes", ())]
    raise UserError(
        shortened(
            f"loss={loss_choice}: takes {' or '.join(takes)}; head={head_choice} gives {gives};"
            f" allowed: {', '.join(fitting)}"
        )
    )


def shortened(line: str, most: int = 200) -> str:
    """A line that can be read: a long list at its end is cut between two words."""
    return line if len(line) <= most else f"{line[: most - 4].rpartition(' ')[0].rstrip(',;')} ..."


def shapes(data: Dataset) -> str:
    """What a network is given and what it has to give, in words."""
    given = ", ".join(map(str, ("B", *data.input_shape)))
    wanted = ", ".join("any" if size is None else str(size) for size in ("B", *answer(data)))
    return f"{data.task}: inputs ({given}), outputs ({wanted})"


def answer(data: Dataset) -> tuple[int | None, ...]:
    """The shape of what a network gives for one sample; None: any size."""
    if data.task == "adversarial":
        return (3 + math.prod(data.input_shape),)
    if data.task == "transcription":
        return (None, data.outputs)
    if data.task == "embedding":
        return (None,)
    targets = tuple(data.train.targets.shape[1:])
    return targets if data.train.targets.is_floating_point() else (*targets, data.outputs)


def misfit(outputs: object, samples: int, data: Dataset) -> str:
    """What is wrong with what a network returned for `samples` samples of `data`, in words; "": nothing.

    A network may know more classes than the data has.
    """
    if not isinstance(outputs, torch.Tensor):
        return f"returns a {type(outputs).__name__}; must return one tensor"
    sizes, found = answer(data), list(outputs.shape)
    if len(found) == 1 + len(sizes):
        wanted = [samples, *(n if size is None else size for size, n in zip(sizes, found[1:], strict=True))]
        if not data.train.targets.is_floating_point():  # classes
            wanted[-1] = max(wanted[-1], found[-1])
        if found == wanted:
            return ""
    came = ["B" if i == 0 and n == samples else str(n) for i, n in enumerate(found)]
    return f"returns ({', '.join(came)})"

"""What is asked of a network: the loss and metrics that go with a task, and other tasks for the same data.

B batch, T time steps, K outputs, I items in a list, L length of a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    models: str = ""  # what to try if a model does not fit


TASKS = {
    "classification": Task("(B,) class indices", "(B, K)", "cross_entropy", ("accuracy",)),
    "binary": Task("(B, 1), 0 or 1", "(B, 1)", "binary_cross_entropy", ("accuracy",)),
    "multi_label": Task("(B, K), 0 or 1, NaN if unknown", "(B, K)", "binary_cross_entropy", ("accuracy",)),
    "regression": Task("(B, K)", "(B, K)", "mse", ("rmse", "mae")),
    "sequence_labelling": Task(
        "(B, T) class indices", "(B, T, K)", "cross_entropy", ("accuracy",), "rnn, lstm, gru"
    ),
    "language_modelling": Task(
        "(B, T) tokens",
        "(B, T, K)",
        "cross_entropy",
        ("accuracy", "bits_per_character"),
        "char_lm, rnn, lstm, gru",
    ),
    "transcription": Task("(B, L) symbols, 0 behind the end", "(B, T, K)", "ctc", ("exact_match",), "crnn"),
    "ranking": Task("(B, I) relevance", "(B, I)", "listnet", ("ndcg",)),
    "embedding": Task("(B,) class indices", "(B, K)", "triplet", ("nearest_neighbour",), "embedding_net"),
    "reconstruction": Task("(B, K) the clean inputs", "(B, K)", "mse", ("rmse",), "denoising_autoencoder"),
    "adversarial": Task("(B, D) real samples", "(B, 3 + D)", "non_saturating", ("fooled",), "gan"),
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


def refuse_misfit(task: str, head: tuple[str, str | None], loss: tuple[str, object, object]) -> None:
    """Refuse a loss that has no use for what the head gives or the task asks for.

    Args:
        head: its choice and the `gives` of its YAML file.
        loss: its choice, and the `takes` and `tasks` of its YAML file; None: nothing is known.

    Raises:
        UserError: they do not go together.
    """
    (head_choice, gives), (loss_choice, takes, tasks) = head, loss
    if isinstance(tasks, list) and task not in tasks:
        raise UserError(f"loss={loss_choice}: made for {', '.join(tasks)}; the task is {task}")
    if isinstance(takes, list) and gives is not None and gives not in takes:
        raise UserError(
            f"loss={loss_choice}: takes {' or '.join(takes)}; head={head_choice} gives {gives};"
            f" allowed: head=auto or another loss"
        )

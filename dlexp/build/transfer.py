"""The network of an earlier run with a new last layer: transfer, frozen or fine-tuned.

B batch, T time steps, K outputs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlexp.build.task import TASKS
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError
from dlexp.folder import COUNTED, SUMMARY, WEIGHTS
from dlexp.parameters import owners

SOURCE = "the folder of a finished run with train.keep_weights=true"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Summary = dict[str, Any]  # summary.json of a run
Weights = dict[str, Tensor]  # its weights.pt


def transfer(
    input_shape: Sequence[int],
    outputs: int,
    vocabulary: int | None,
    data: Dataset,
    rebuild: Callable[[Summary, Weights], nn.Module],
    draw_weights: Callable[[nn.Module], None],
    *,
    source: str | None,
    frozen: bool,
) -> nn.Module:
    """The network of an earlier run as it was at its end, but for the layer that runs last: that is new.

    What stands behind that layer in the network, an activation say, stays there.

    Args:
        rebuild: the network of a run with its weights, without what head= put behind it.
        draw_weights: gives a module its initial weights.
        source: the folder of the run.
        frozen: all that is old learns nothing and is in evaluation mode: without dropout, and batch
            normalization keeps its running statistics. Otherwise all of it learns on (fine-tuning).

    Raises:
        UserError: the run cannot be used, or not for this data, or has no last layer to be replaced.
    """
    if source is None:
        raise UserError(f"model.source=null: allowed: {SOURCE}")
    sample = torch.zeros(2, *input_shape, dtype=torch.float32 if vocabulary is None else torch.int64)
    try:
        summary, weights = _read(Path(source).expanduser())
        _refuse_other_kind(summary, tuple(input_shape), vocabulary, data.task)
        try:
            network = rebuild(summary, weights).eval()
        except Exception as error:
            raise UserError(f"its network cannot be built again: {_line(error)}") from error
        answers, last = _run(network, sample)
        head = _like(last, outputs)
        _replace(network, last, head)
        if len(list(network.parameters())) == len(list(head.parameters())):
            raise UserError("its network has one layer, nothing to carry over; allowed: one with more layers")
        _refuse_other_answers(network, sample, head, (*answers.shape[:-1], outputs))
    except UserError as error:
        raise UserError(f"model.source={source}: {error}") from error
    network.requires_grad_(not frozen).train(not frozen)  # nobody changes the mode later on
    draw_weights(head.requires_grad_(True).train())
    return network


def _read(folder: Path) -> tuple[Summary, Weights]:
    """What a run left behind, if it came to its end."""
    if not folder.is_dir():
        raise UserError(f"no such folder; allowed: {SOURCE}")
    if not (folder / SUMMARY).is_file():
        raise UserError(f"no run has ended there, it has no {SUMMARY}; allowed: {SOURCE}")
    summary: Summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if summary["status"] not in COUNTED:
        raise UserError(f"its status is {summary['status']}; allowed: {SOURCE}")
    if "data" not in summary:
        raise UserError("an older dlexp did not note the shape of its inputs; allowed: the same run again")
    if not (folder / WEIGHTS).is_file():
        words = [word for word in summary["overrides"] if not word.startswith("hydra.")]
        again = shlex.join(["dlexp", *words, "train.keep_weights=true"])
        raise UserError(f"its weights were not kept; allowed: {again}")
    try:
        return summary, torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"its {WEIGHTS} cannot be read: {_line(error)}") from error


def _refuse_other_kind(
    summary: Summary, input_shape: tuple[int, ...], vocabulary: int | None, task: str
) -> None:
    """Refuse a run that learned from other inputs, or to give answers of another form."""
    was, tokens = tuple(summary["data"]["input_shape"]), summary["data"]["vocabulary"]
    if was != input_shape:
        raise UserError(f"learned from inputs of shape {was}; the data has {input_shape}; allowed: the same")
    if tokens != vocabulary:
        raise UserError(
            f"learned from {tokens or 'no'} tokens; the data has {vocabulary or 'none'}; allowed: as many"
        )
    form, wanted = (TASKS[name].outputs for name in (summary["config"]["task"], task))
    if form.count(",") != wanted.count(","):  # as many dimensions
        raise UserError(
            f"learned {summary['config']['task']}, with answers {form}; those of {task} are {wanted};"
            " allowed: answers of the same form"
        )


def _run(network: nn.Module, sample: Tensor) -> tuple[Tensor, nn.Module | None]:
    """What the network answers, and which layer ran last."""
    ran: list[nn.Module | None] = [None]
    hooks = [
        module.register_forward_pre_hook(lambda module, _: ran.append(module))
        for module in owners(network).values()
    ]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        answers: Tensor = network(sample)
    for hook in hooks:
        hook.remove()
    return answers, ran[-1]


def _like(last: nn.Module | None, outputs: int) -> nn.Module:
    """A layer like `last` with so many outputs."""
    bias = getattr(last, "bias", None) is not None
    if isinstance(last, nn.Linear):
        return nn.Linear(last.in_features, outputs, bias=bias)
    for kind in CONVOLUTIONS:
        if isinstance(last, kind):
            same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            values: dict[str, Any] = {name: getattr(last, name) for name in same}
            return kind(last.in_channels, outputs, bias=bias, **values)
    found = "no layer" if last is None else f"a layer of kind {type(last).__name__}"
    raise UserError(f"its network ends in {found}; allowed: one that ends in nn.Linear or a convolution")


def _replace(network: nn.Module, old: nn.Module | None, new: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module._modules.items()):  # named_children() tells one name of a child
            if child is old:
                setattr(module, name, new)


def _refuse_other_answers(
    network: nn.Module, sample: Tensor, head: nn.Module, wanted: tuple[int, ...]
) -> None:
    """Refuse a network whose answers are not just what its last layer gives."""
    try:
        answers, last = _run(network, sample)
        why = "" if last is head and answers.shape == wanted else f"it gives {tuple(answers.shape)}"
    except Exception as error:
        why = _line(error)
    if why:
        raise UserError(
            f"its answers are not those of one last layer alone ({why}); allowed: a network that ends in one"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

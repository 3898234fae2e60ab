"""The one door between the config and everything else: a config goes in, finished objects come out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dlexp.build.initialize import initialize
from dlexp.compose import Request
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

# Hydra 1.4 asks which targets a config may name. Here the person who types the command also owns the
# machine, and a class of their own is meant to work (model._target_=my_package.MyNet).
try:
    from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS  # type: ignore[attr-defined]

    ANY_TARGET: dict[str, Any] = {"_execution_whitelist_": UNSAFE_DISABLE_EXECUTION_CHECKS}
except ImportError:  # Hydra 1.3
    ANY_TARGET = {}

NONE = "torch.nn.Identity"  # what normalization=none and dropout=none stand for


@dataclass(frozen=True)
class Parts:
    """What a training run is made of."""

    data: Dataset
    model: nn.Module
    loss: nn.Module  # (outputs, targets) -> scalar
    optimizer: torch.optim.Optimizer
    steps: int  # optimizer steps of the whole run
    steps_per_epoch: int


def assemble(request: Request, device: torch.device) -> Parts:
    """Build all parts of the run on `device`.

    Random numbers come from PyTorch's default generator, which the caller seeds.

    Raises:
        UserError: choices that are fine by themselves do not fit together or their data is missing.
    """
    config = request.config
    data: Dataset = _build(request, "data").to(device)
    steps, steps_per_epoch = _length(config, data, request)
    model = _model(request, data).to(device)
    loss = _build(request, "loss").to(device)
    _rehearse(request, model, loss, data)
    optimizer = _build(request, "optimizer", model.parameters())
    if inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty:
        choice = request.choices["optimizer"]
        raise UserError(f"optimizer={choice}: wants to evaluate the loss several times a step; not supported")
    return Parts(data, model, loss, optimizer, steps, steps_per_epoch)


def _length(config: DictConfig, data: Dataset, request: Request) -> tuple[int, int]:
    train, samples = config.train, len(data.train)
    if train.batch_size > samples:
        raise UserError(
            f"train.batch_size={train.batch_size}: larger than the training split of"
            f" data={request.choices['data']}; allowed: 1 to {samples}"
        )
    steps_per_epoch = samples // train.batch_size
    return train.max_steps or train.epochs * steps_per_epoch, steps_per_epoch


def _model(request: Request, data: Dataset) -> nn.Module:
    """The network with its initial weights, on the CPU, so that they are the same for every device."""
    config = request.config
    build = _build(request, "model")
    extras: dict[str, Any] = {"activation": _factory(request, "activation")}
    for group in ("normalization", "dropout"):
        if config[group]._target_ != NONE:
            extras[group] = _factory(request, group, leave_out=["position"])
    if "normalization" in extras:
        extras["position"] = config.normalization.get("position", "before")
        if config.normalization._target_.startswith("torch.nn.Batch") and config.train.batch_size < 2:
            raise UserError(
                f"normalization={request.choices['normalization']}: needs two samples or more to"
                " normalize over; allowed with train.batch_size=1: none, layer"
            )
    with _blame(request, "model"):
        taken = inspect.signature(build).parameters
    for group in ("normalization", "dropout"):
        if group in extras and group not in taken:
            raise UserError(
                f"{group}={request.choices[group]}: model={request.choices['model']} has no hidden"
                " layer to put it in; allowed: none"
            )
    with _blame(request, "model"):
        model: nn.Module = build(
            input_shape=data.input_shape,
            outputs=data.classes,
            **{name: value for name, value in extras.items() if name in taken},
        )
    draw = _factory(request, "initializer", leave_out=["bias"])
    initialize(model, draw, config.initializer.get("bias"))
    return model


def _rehearse(request: Request, model: nn.Module, loss: nn.Module, data: Dataset) -> None:
    """One forward pass of two samples, so that parts that do not fit fail before a folder exists."""
    inputs, targets = data.train.inputs[:2], data.train.targets[:2]
    model.eval()  # leaves running statistics and the random numbers of dropout alone
    with torch.no_grad():
        with _blame(request, "model"):
            outputs = model(inputs)
        with _blame(request, "loss"):
            loss(outputs, targets)
    model.train()


def _build(request: Request, group: str, *args: Any, leave_out: Sequence[str] = ()) -> Any:
    """What the `_target_` of a group makes of its values, called with `args` if there are any."""
    node = OmegaConf.to_container(request.config[group])
    assert isinstance(node, dict)
    for key in leave_out:
        node.pop(key, None)
    with _blame(request, group):
        made = instantiate(node, _convert_="all", **ANY_TARGET)
        if isinstance(made, functools.partial):
            _refuse_unknown(request, group, made)
        return made(*args) if args else made


def _refuse_unknown(request: Request, group: str, made: functools.partial[Any]) -> None:
    """Refuse values that what the group names does not take; Hydra lets `+group.key=value` pass."""
    taken = inspect.signature(made.func).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken):
        return
    for name in made.keywords.keys() - {p.name for p in taken}:
        raise UserError(
            f"{group}.{name}={made.keywords[name]}: {group}={request.choices[group]} takes no such value"
        )


def _factory(request: Request, group: str, *, leave_out: Sequence[str] = ()) -> Callable[..., Any]:
    """What makes a new module at each call, or a clear line of what is wrong with its values."""
    if not request.config[group].get("_partial_"):
        raise UserError(
            f"{group}={request.choices[group]}: its YAML file needs the line `_partial_: true`, because"
            " it is called anew for each layer"
        )
    make = _build(request, group, leave_out=leave_out)

    def factory(*args: Any) -> Any:
        with _blame(request, group):
            return make(*args)

    return factory


@contextmanager
def _blame(request: Request, group: str) -> Iterator[None]:
    """Turn what a constructor raises into one line that starts with the choice that led to it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else None
        if isinstance(cause, UserError):
            raise cause from error
        text = " ".join(str(cause or error).split())
        if "DefaultCPUAllocator" in text or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            text = "does not fit into memory"
        raise UserError(f"{group}={request.choices[group]}: {text}") from error

"""The one door between the config and everything else: a config goes in, finished objects come out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_method, get_object, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from dlexp.build.initialize import initialize
from dlexp.build.losses import PerStep
from dlexp.build.task import TASKS, refuse_misfit, view
from dlexp.compose import CONFIGS, Request
from dlexp.data.dataset import Dataset
from dlexp.errors import UserError
from dlexp.train import metrics
from dlexp.train.learning_rate import LearningRate
from dlexp.train.step import Metric, Regularizer, evaluating
from dlexp.train.stopping import EarlyStopping

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

    request: Request  # with the loss and the metrics that the task stands for filled in
    data: Dataset
    model: nn.Module
    loss: nn.Module  # (outputs, targets) -> scalar
    metrics: dict[str, Metric]
    optimizer: torch.optim.Optimizer | None  # None: there is nothing to learn
    regularizer: Regularizer | None
    augmentation: nn.Module | None  # inputs -> inputs, of every training batch
    clip: Callable[[], Tensor] | None
    learning_rate: LearningRate | None
    stopping: EarlyStopping | None
    batch_size: int
    steps: int  # optimizer steps of the whole run
    steps_per_epoch: int
    order: tuple[str, ...]  # the paths of the model's modules, in the order in which they run
    used: tuple[str, ...]  # those of the groups activation, normalization and dropout that the model takes


def assemble(request: Request, device: torch.device) -> Parts:
    """Build all parts of the run on `device`.

    Random numbers come from PyTorch's default generator, which the caller seeds.

    Raises:
        UserError: choices that are fine by themselves do not fit together or their data is missing.
    """
    data: Dataset = view(_build(request, "data"), request.config.task).to(device)
    request = _fill_in(request, data.task)
    config = request.config
    if config.gradient_check and data.task == "adversarial":
        raise UserError("gradient_check=true: two losses in one have no gradient to check; allowed: false")
    batch_size, steps, steps_per_epoch = _length(request, data)
    model, taken = _model(request, data)
    model = model.to(device)
    loss = _loss(request, data.task).to(device)
    measured = _metrics(request, data)
    order = _rehearse(request, model, loss, measured, data)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(request, learned) if learned else None
    regularizer = _build(request, "regularizer") if "_target_" in config.regularizer else None
    after_step = getattr(regularizer, "after_step", None)
    if optimizer and after_step:
        optimizer.register_step_post_hook(lambda *_: after_step(model, optimizer))
    clip = None
    if "_target_" in config.clip:
        clip = partial(_factory(request, "clip"), learned)
    return Parts(
        request=request,
        data=data,
        model=model,
        loss=loss,
        metrics=measured,
        optimizer=optimizer,
        regularizer=regularizer,
        augmentation=_augmentation(request, data),
        clip=clip,
        learning_rate=_learning_rate(request, optimizer, steps, steps_per_epoch),
        stopping=_stopping(request, measured),
        batch_size=batch_size,
        steps=steps if optimizer else 0,
        steps_per_epoch=steps_per_epoch,
        order=order,
        used=tuple(group for group in ("activation", "normalization", "dropout") if group in taken),
    )


def _fill_in(request: Request, task: str) -> Request:
    """The request with `auto` replaced by what goes with the task."""
    config, choices = request.config.copy(), dict(request.choices)
    if "_target_" not in config.loss:
        choices["loss"] = TASKS[task].loss
        chosen = OmegaConf.load(CONFIGS / "loss" / f"{choices['loss']}.yaml")
        config.loss = OmegaConf.merge(chosen, config.loss)
    if config.metrics == "auto":
        config.metrics = list(TASKS[task].metrics)
    config.task = task
    return replace(request, config=config, choices=choices)


def _length(request: Request, data: Dataset) -> tuple[int, int, int]:
    """Samples in a batch, steps of the run, steps in an epoch."""
    train, samples = request.config.train, len(data.train)
    batch_size = samples if train.batch_size == "all" else train.batch_size
    if batch_size > samples:
        raise UserError(
            f"train.batch_size={batch_size}: larger than the training split of"
            f" data={request.choices['data']}; allowed: all or 1 to {samples}"
        )
    steps_per_epoch = samples // batch_size
    return batch_size, train.max_steps or train.epochs * steps_per_epoch, steps_per_epoch


def _model(request: Request, data: Dataset) -> tuple[nn.Module, Collection[str]]:
    """The network with its initial weights, and the names of what it takes.

    It is on the CPU, so that weights are the same for every device.
    """
    build = _build(request, "model")
    extras = _extras(request, data)
    with _blame(request, "model"):
        # a YAML file without `_partial_` has made its module already
        taken = {} if isinstance(build, nn.Module) else inspect.signature(build).parameters
    if data.vocabulary is not None and taken and "vocabulary" not in taken:
        raise UserError(
            f"model={request.choices['model']}: takes numbers; data={request.choices['data']} has tokens;"
            f" allowed: {TASKS[data.task].models or 'rnn, lstm, gru'}"
        )
    for group in ("normalization", "dropout"):
        if group in extras and group not in taken:
            raise UserError(
                f"{group}={request.choices[group]}: model={request.choices['model']} takes none;"
                " allowed: none"
            )
    with _blame(request, "model"):
        own = {name: value for name, value in extras.items() if name in taken}
        model: nn.Module = build if isinstance(build, nn.Module) else build(**own)
    draw = _factory(request, "initializer", leave_out=["bias"])
    initialize(model, draw, request.config.initializer.get("bias"))
    head = _build(request, "head", leave_out=["gives"])()
    if not isinstance(head, nn.Identity):
        model = model.append(head) if type(model) is nn.Sequential else nn.Sequential(model, head)
    return model, own.keys()


def _extras(request: Request, data: Dataset) -> dict[str, Any]:
    """What a model is offered; it is called with those of them that it has a parameter for."""
    config = request.config
    extras: dict[str, Any] = {
        "input_shape": data.input_shape,
        "outputs": data.outputs,
        "vocabulary": data.vocabulary,
        "data": data,
        "activation": _factory(request, "activation"),
    }
    for group in ("normalization", "dropout"):
        if config[group]._target_ != NONE:
            extras[group] = _factory(request, group, leave_out=["position"])
    if "normalization" in extras:
        extras["position"] = config.normalization.get("position", "before")
        if "atch" in config.normalization._target_ and config.train.batch_size == 1:
            raise UserError(
                f"normalization={request.choices['normalization']}: needs two samples or more to"
                " normalize over; allowed with train.batch_size=1: none, layer, rms, group"
            )
    return extras


def _augmentation(request: Request, data: Dataset) -> nn.Module | None:
    if "_target_" not in request.config.augmentation:
        return None
    augmentation: nn.Module = _build(request, "augmentation")
    with _blame(request, "augmentation"), evaluating(augmentation):
        augmentation(data.train.inputs[:2])
    return augmentation


def _loss(request: Request, task: str) -> nn.Module:
    config, choices = request.config, request.choices
    known = OmegaConf.to_container(config.loss)
    assert isinstance(known, dict)
    refuse_misfit(
        task,
        (choices["head"], config.head.get("gives")),
        (choices["loss"], known.get("takes"), known.get("tasks")),
    )
    loss: nn.Module = _build(request, "loss", leave_out=["takes", "tasks"])
    return PerStep(loss) if task in ("sequence_labelling", "language_modelling") else loss


def _metrics(request: Request, data: Dataset) -> dict[str, Metric]:
    """Name -> function of outputs and targets; one that asks is told where yes begins, and facts."""
    threshold = 0.5 if request.config.head.get("gives") in ("probabilities", "hard") else 0.0
    found: dict[str, Metric] = {}
    for name in request.config.metrics:
        metric: Any = _method(name) if "." in name else metrics.ALL.get(name)
        if metric is None:
            raise UserError(f"metrics=[{name}]: no such metric; allowed: {', '.join(metrics.ALL)}")
        known = {"threshold": threshold, "facts": data.facts}
        taken = inspect.signature(metric).parameters.keys() & known
        found[name.rpartition(".")[2]] = partial(metric, **{key: known[key] for key in taken})
    return found


def _method(path: str) -> Metric | None:
    """A metric of one's own, my_package.my_metric."""
    try:
        found: Metric = get_method(path)
        return found
    except Exception as error:
        raise UserError(f"metrics=[{path}]: cannot be imported: {' '.join(str(error).split())}") from error


def _optimizer(request: Request, learned: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = _build(request, "optimizer", learned)
    if inspect.signature(optimizer.step).parameters["closure"].default is inspect.Parameter.empty:
        choice = request.choices["optimizer"]
        raise UserError(f"optimizer={choice}: wants to evaluate the loss several times a step; not supported")
    return optimizer


def _learning_rate(
    request: Request, optimizer: torch.optim.Optimizer | None, steps: int, steps_per_epoch: int
) -> LearningRate | None:
    """The schedule; lengths that its YAML file leaves open (null) are those of the run."""
    config = request.config.scheduler
    if "_target_" not in config or optimizer is None:
        return None
    length = steps if config.each == "step" else -(-steps // steps_per_epoch)
    own = {name: length for name in ("total_steps", "T_max", "total_iters") if name in config}
    open_ones = {name: value for name, value in own.items() if config[name] is None}
    make = _build(request, "scheduler", leave_out=["each", *open_ones])
    with _blame(request, "scheduler"):
        return LearningRate(make(optimizer, **open_ones), config.each, steps_per_epoch)


def _stopping(request: Request, metrics: dict[str, Metric]) -> EarlyStopping | None:
    if "_target_" not in request.config.stopping:
        return None
    monitor, allowed = request.config.stopping.monitor, [f"{name}/validation" for name in ("loss", *metrics)]
    if monitor not in allowed:
        raise UserError(f"stopping.monitor={monitor}: not measured; allowed: {', '.join(allowed)}")
    stopping: EarlyStopping = _build(request, "stopping")
    return stopping


def _rehearse(
    request: Request, model: nn.Module, loss: nn.Module, metrics: dict[str, Metric], data: Dataset
) -> tuple[str, ...]:
    """One forward pass of two samples, so that parts that do not fit fail before a folder exists.

    Returns:
        The paths of all modules in the order in which they ran first.
    """
    order: dict[str, None] = {}
    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: order.setdefault(path))
        for path, module in model.named_modules()
    ]
    inputs, targets = data.train.inputs[:2], data.train.targets[:2]
    # evaluation mode leaves running statistics alone
    hint = TASKS[data.task].models
    with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
        with _blame(request, "model", hint and f"; for the task {data.task} there are {hint}"):
            outputs = model(inputs)
        for hook in hooks:
            hook.remove()
        with _blame(request, "loss", hint and f"; models for the task {data.task}: {hint}"):
            loss(outputs, targets)
        for name, metric in metrics.items():
            try:
                metric(outputs, targets)
            except Exception as error:
                text = " ".join(str(error).split())
                raise UserError(f"metrics=[{name}]: does not fit the task {data.task}: {text}") from error
    return tuple(order)


def _build(request: Request, group: str, *args: Any, leave_out: Sequence[str] = ()) -> Any:
    """What the `_target_` of a group makes of its values, called with `args` if there are any."""
    node = OmegaConf.to_container(request.config[group])
    assert isinstance(node, dict)
    for key in leave_out:
        node.pop(key, None)
    _leave_out_foreign(request, group, node)
    with _blame(request, group):
        made = instantiate(node, _convert_="all", **ANY_TARGET)
        if isinstance(made, partial):
            _refuse_unknown(request, group, made)
        return made(*args) if args else made


def _leave_out_foreign(request: Request, group: str, node: dict[Any, Any]) -> None:
    """After `group._target_=my_package.MyNet` the YAML file's own values go, unless MyNet takes them."""
    typed = {word.lstrip("+").partition("=")[0] for word in request.overrides}
    if f"{group}._target_" not in typed:
        return
    with _blame(request, group):
        taken = inspect.signature(get_object(node["_target_"])).parameters
    for key in [key for key in node if not key.startswith("_") and key not in taken]:
        if f"{group}.{key}" not in typed:
            del node[key]


def _refuse_unknown(request: Request, group: str, made: partial[Any]) -> None:
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

    def factory(*args: Any, **values: Any) -> Any:
        with _blame(request, group):
            return make(*args, **values)

    return factory


@contextmanager
def _blame(request: Request, group: str, hint: str = "") -> Iterator[None]:
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
        raise UserError(f"{group}={request.choices[group]}: {text}{hint}") from error

"""The one door between the config and everything else: a config goes in, finished objects come out."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dlexp.build import kept
from dlexp.build.initialize import initialize
from dlexp.build.losses import PerStep
from dlexp.build.target import locate
from dlexp.build.task import COMPETING, TASKS, answer, misfit, refuse_misfit, shapes, shortened, view
from dlexp.compose import ANY_TARGET, CONFIGS, Request, notes
from dlexp.data.dataset import Dataset, Split
from dlexp.errors import TRACE_HINT, UserError
from dlexp.train import metrics
from dlexp.train.gaps import SHARES
from dlexp.train.learning_rate import LearningRate
from dlexp.train.milestone import Milestone
from dlexp.train.step import Metric, Regularizer, evaluating
from dlexp.train.stopping import EarlyStopping

OTHER_SHARES = ("error_rate", "ece", "fooled", "modes_covered", "two_sample")  # metrics from 0 to 1, too
OFFERED_IF_CHOSEN = ("normalization", "position", "dropout")  # to a model; with normalization=none, say, not
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
    milestone: Milestone | None  # what is asked for by train.target
    threshold: float  # an output above it is a yes
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
    data = _data(request, device)
    request = _fill_in(request, data.task)
    config = request.config
    if config.gradient_check and data.task == "adversarial":
        raise UserError(
            "debug=gradient_check: two losses in one have no gradient to check; allowed: debug=none"
            if request.choices["debug"] == "gradient_check"
            else "gradient_check=true: two losses in one have no gradient to check; allowed: false"
        )
    batch_size, steps, steps_per_epoch = _length(request, data)
    model, taken = _model(request, data)
    model = model.to(device)
    loss = _loss(request, data.task, answer(data)[-1]).to(device)
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
        milestone=_milestone(request, measured, steps_per_epoch),
        threshold=_threshold(request),
        batch_size=batch_size,
        steps=steps if optimizer else 0,
        steps_per_epoch=steps_per_epoch,
        order=order,
        used=tuple(group for group in ("activation", "normalization", "dropout") if group in taken),
    )


def _data(request: Request, device: torch.device) -> Dataset:
    """The samples with their question, on `device`; those that dlexp makes are made once per process."""
    node, task = _values(request, "data"), request.config.task

    def build() -> Dataset:
        return view(_build(request, "data"), task).to(device)

    if not str(node.get("_target_")).startswith("dlexp.data."):
        return build()  # of one's own: nobody knows what it reads and whether it draws
    file = kept.stamp(node["path"]) if isinstance(node.get("path"), str) else None
    place = Path.cwd()  # what data.root is relative to
    return kept.once((repr(node), task, str(device), file, place), build)


def _fill_in(request: Request, task: str) -> Request:
    """The request with `auto` replaced by what goes with the task."""
    config, choices = request.config.copy(), dict(request.choices)
    if "_target_" not in config.loss:
        choices["loss"] = TASKS[task].loss
        config.loss = OmegaConf.merge(_loss_of_task(task), config.loss)
    if config.metrics == "auto":
        config.metrics = list(TASKS[task].metrics)
    config.task = task
    return replace(request, config=config, choices=choices)


@cache
def _loss_of_task(task: str) -> ListConfig | DictConfig:
    return OmegaConf.load(CONFIGS / "loss" / f"{TASKS[task].loss}.yaml")


def _length(request: Request, data: Dataset) -> tuple[int, int, int]:
    """Samples in a batch, steps of the run, steps in an epoch."""
    train, samples = request.config.train, len(data.train)
    batch_size = samples if train.batch_size == "all" else train.batch_size
    if batch_size > samples and "train.batch_size" not in _typed(request):
        batch_size = train.batch_size = samples  # of small data the default takes all there is
    if batch_size > samples:
        raise UserError(
            f"train.batch_size={batch_size}: larger than the training split of"
            f" data={request.choices['data']}; allowed: all or 1 to {samples}, for example"
            f" train.batch_size={samples}"
        )
    steps_per_epoch = samples // batch_size
    return batch_size, train.max_steps or train.epochs * steps_per_epoch, steps_per_epoch


def _model(request: Request, data: Dataset) -> tuple[nn.Module, Collection[str]]:
    """The network with its initial weights, and the names of what it takes.

    It is on the CPU, so that weights are the same for every device.
    """
    weight = _factory(request, "initializer", leave_out=["bias"])
    draw = partial(initialize, weight=weight, bias=request.config.initializer.get("bias"))
    network, taken = _network(request, data, draw)
    default = OmegaConf.load(CONFIGS / "activation" / "relu.yaml")  # as config.yaml has it
    if _activation_typed(request) and "activation" not in taken and request.config.activation != default:
        model = _asked(request, "model")
        raise UserError(f"{_asked(request, 'activation')}: {model} takes none; allowed: to leave it out")
    if "draw_weights" not in taken:  # otherwise it has drawn what is new
        draw(network)
    return _with_head(network, _head(request)), taken


def _network(
    request: Request, data: Dataset, draw: Callable[[nn.Module], None]
) -> tuple[nn.Module, Collection[str]]:
    """The network with what weights its parts start from by themselves, and the names of what it takes."""
    build = _build(request, "model")
    extras = _extras(request, data) | {"rebuild": _rebuild, "draw_weights": draw}
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
                f"{group}={request.choices[group]}: {_asked(request, 'model')} takes none; allowed: none"
            )
    if _activation_typed(request) and "rebuild" in taken:
        raise UserError(
            f"activation={request.choices['activation']}: model={request.choices['model']} has that of its"
            " source; allowed: to leave it out"
        )
    lacking = [
        name
        for name, p in (taken or {}).items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if name not in (*extras, *OFFERED_IF_CHOSEN)
    ]
    if lacking:
        values = " ".join(f"+model.{name}=VALUE" for name in lacking)
        raise UserError(f"{_asked(request, 'model')}: needs a value of {', '.join(lacking)}; type {values}")
    with _blame(request, "model"):
        own = {name: value for name, value in extras.items() if name in taken}
        network = build if isinstance(build, nn.Module) else build(**own)
    network = _as_module(request, "model", network)
    _materialize(request, network, data)
    return network, own.keys()


def _materialize(request: Request, network: nn.Module, data: Dataset) -> None:
    """Let modules that learn their shapes from what comes in, as `nn.LazyLinear`, see one sample."""
    if not any(map(is_lazy, network.parameters())):
        return
    unfit = f"does not fit data={request.choices['data']} ({shapes(data)}): "
    with torch.no_grad(), evaluating(network), _blame(request, "model", unfit):
        network(data.train.inputs[:1].cpu())
    left = [name for name, p in network.named_parameters() if is_lazy(p)]
    if left:
        raise UserError(
            f"{_asked(request, 'model')}: {left[0]} has no shape, as its module did not run;"
            " allowed: lazy modules that run"
        )


def _activation_typed(request: Request) -> bool:
    return any(key == "activation" or key.startswith("activation.") for key in _typed(request))


def _head(request: Request) -> nn.Module | None:
    head = _as_module(request, "head", _build(request, "head", leave_out=["gives"])())
    return None if isinstance(head, nn.Identity) else head


def _with_head(network: nn.Module, head: nn.Module | None) -> nn.Module:
    if head is None:
        return network
    return network.append(head) if type(network) is nn.Sequential else nn.Sequential(network, head)


def _rebuild(summary: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The network of an earlier run with its weights, without its head."""
    config = OmegaConf.create(summary["config"])
    request = Request(config, summary["choices"], summary["overrides"], OmegaConf.create())
    shape, outputs, vocabulary = (summary["data"][key] for key in ("input_shape", "outputs", "vocabulary"))
    inputs = torch.zeros(1, *shape, dtype=torch.float32 if vocabulary is None else torch.int64)
    split = Split(inputs, torch.zeros(1, dtype=torch.int64))  # networks ask for shapes, not for samples
    data = Dataset(split, split, split, outputs, config.task, vocabulary)
    with torch.random.fork_rng(devices=[]):
        network, _ = _network(request, data, draw=lambda _: None)
    head = _head(request)
    _with_head(network, head).load_state_dict(weights)
    return network[:-1] if head is not None and type(network) is nn.Sequential else network


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


def _loss(request: Request, task: str, outputs: int | None) -> nn.Module:
    choices = request.choices
    if outputs == 1 and choices["head"] in COMPETING and _note(request, "head", "gives"):
        always = "0" if choices["head"] == "log_softmax" else "1"
        others = (f"head={word}" for word in notes("head") if word not in COMPETING)
        raise UserError(
            f"head={choices['head']}: over one output it is always {always}; allowed: {', '.join(others)}"
        )
    refuse_misfit(
        task,
        (choices["head"], _note(request, "head", "gives")),
        (choices["loss"], _note(request, "loss", "takes"), _note(request, "loss", "tasks")),
        notes,
    )
    loss = _as_module(request, "loss", _build(request, "loss", leave_out=["takes", "tasks"]))
    return PerStep(loss) if task in ("sequence_labelling", "language_modelling") else loss


def _metrics(request: Request, data: Dataset) -> dict[str, Metric]:
    """Name -> function of outputs and targets; one that asks is told where yes begins, and facts."""
    found: dict[str, Metric] = {}
    fitting = list(dict.fromkeys((*TASKS[data.task].metrics, *TASKS[data.task].more)))
    for name in request.config.metrics:
        asked = f"metrics=[{name}]"
        if "." not in name and name not in fitting:
            close = difflib.get_close_matches(name, fitting, n=1)
            what = f"no such metric{f'; did you mean {close[0]}?' if close else ''}"
            what = f"does not fit the task {data.task}" if name in metrics.ALL else what
            raise UserError(f"{asked}: {what}; allowed: {', '.join(fitting)}")
        metric: Any = locate(asked, name) if "." in name else metrics.ALL[name]
        known = {"threshold": _threshold(request), "facts": data.facts}
        taken = inspect.signature(metric).parameters.keys() & known
        found[name.rpartition(".")[2]] = partial(metric, **{key: known[key] for key in taken})
    return found


def _threshold(request: Request) -> float:
    """Where yes begins."""
    return 0.5 if _note(request, "head", "gives") in ("probabilities", "hard") else 0.0


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
    _refuse_unmeasured("stopping.monitor", request.config.stopping.monitor, metrics)
    stopping: EarlyStopping = _build(request, "stopping")
    return stopping


def _milestone(request: Request, metrics: dict[str, Metric], steps_per_epoch: int) -> Milestone | None:
    target, tag = request.config.train.target, request.config.train.target_metric
    if tag == "auto":
        tag = f"{next(iter(metrics), 'loss')}/validation"
    _refuse_unmeasured("train.target_metric", tag, metrics)
    if target is not None and not 0 <= target <= 1 and tag.partition("/")[0] in (*SHARES, *OTHER_SHARES):
        raise UserError(f"train.target={target:g}: {tag} is a share; allowed: a number in [0, 1]")
    return None if target is None else Milestone(tag, target, steps_per_epoch)


def _refuse_unmeasured(key: str, tag: str, metrics: dict[str, Metric]) -> None:
    """Scalars are waited for on the validation split, which is evaluated while training goes on."""
    allowed = [f"{name}/validation" for name in ("loss", *metrics)]
    if tag not in allowed:
        raise UserError(f"{key}={tag}: not measured; allowed: {', '.join(allowed)}")


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
    unfit = f"does not fit data={request.choices['data']} ({shapes(data)})"
    hint = f"; allowed: {TASKS[data.task].models}" if TASKS[data.task].models else ""
    # evaluation mode leaves running statistics alone
    with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
        with _blame(request, "model", f"{unfit}{hint}: "):
            outputs = model(inputs)
        for hook in hooks:
            hook.remove()
        # what a loss of one's own takes is not known
        wrong = misfit(outputs, len(inputs), data)
        if wrong and (_note(request, "loss", "tasks") or not isinstance(outputs, Tensor)):
            raise UserError(f"{_asked(request, 'model')}: {unfit}: {wrong}{hint}")
        with _blame(request, "loss"):
            found = loss(outputs, targets)
        if not isinstance(found, Tensor) or found.dim():
            shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
            raise UserError(
                f"{_asked(request, 'loss')}: gives a {type(found).__name__}{shape}; allowed: one number,"
                " as loss.reduction=mean or sum give it"
            )
        for name, metric in metrics.items():
            try:
                metric(outputs, targets)
            except Exception as error:
                text = " ".join(str(error).split())
                raise UserError(
                    shortened(f"metrics=[{name}]: does not fit data={request.choices['data']}: {text}")
                ) from error
    return tuple(order)


def _build(request: Request, group: str, *args: Any, leave_out: Sequence[str] = ()) -> Any:
    """What the `_target_` of a group makes of its values, called with `args` if there are any."""
    node = _values(request, group)
    for key in leave_out:
        node.pop(key, None)
    _leave_out_foreign(request, group, node)
    target = locate(_asked(request, group), node.get("_target_"))
    with _blame(request, group):
        made = _instantiated(target, node)
        if isinstance(made, partial):
            _refuse_unknown(request, group, made)
        return made(*args) if args else made


def _values(request: Request, group: str) -> dict[str, Any]:
    """The values of a group as plain Python; nobody else has this dict."""
    node: Any = OmegaConf.to_container(request.config[group])
    assert isinstance(node, dict)
    return node


def _instantiated(target: Callable[..., Any], node: dict[str, Any]) -> Any:
    """What Hydra's `instantiate` makes of a node whose `_target_` is known.

    Hydra itself is asked only if there is more to do than one call: it takes milliseconds for each.
    """
    own = {key for key in node if key.startswith("_")} - {"_target_"}
    if not own <= {"_partial_"} or any(map(_names_a_target, node.values())):
        return instantiate(node, _convert_="all", **ANY_TARGET)
    values = {key: value for key, value in node.items() if not key.startswith("_")}
    return partial(target, **values) if node.get("_partial_") else target(**values)


def _names_a_target(value: object) -> bool:
    """Does `_target_` stand somewhere in it?"""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_names_a_target, value.values()))
    return isinstance(value, list) and any(map(_names_a_target, value))


def _leave_out_foreign(request: Request, group: str, node: dict[Any, Any]) -> None:
    """After `group._target_=my_package.MyNet` the YAML file's own values go, unless MyNet takes them."""
    typed = _typed(request)
    if f"{group}._target_" not in typed:
        return
    target = locate(_asked(request, group), node["_target_"])
    with _blame(request, group):
        taken = inspect.signature(target).parameters
    for key in [key for key in node if not key.startswith("_") and key not in taken]:
        if f"{group}.{key}" not in typed:
            del node[key]


def _refuse_unknown(request: Request, group: str, made: partial[Any]) -> None:
    """Refuse values that what the group names does not take; Hydra lets `+group.key=value` pass."""
    taken = inspect.signature(made.func).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken):
        return
    for name in made.keywords.keys() - {p.name for p in taken}:
        raise UserError(f"{group}.{name}={made.keywords[name]}: {_asked(request, group)} takes no such value")


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


def _note(request: Request, group: str, name: str) -> Any:
    """What the YAML file of a choice says of what it fits; None: nothing is known, as of one's own class."""
    return None if f"{group}._target_" in _typed(request) else _values(request, group).get(name)


def _as_module(request: Request, group: str, made: object) -> nn.Module:
    """What was made, if it is a module of PyTorch's."""
    if not isinstance(made, nn.Module):
        raise UserError(f"{_asked(request, group)}: gives a {type(made).__name__}, is no torch.nn.Module")
    return made


def _asked(request: Request, group: str) -> str:
    """The word that led to what a group names: its choice, or the `_target_` typed in its place."""
    if f"{group}._target_" in _typed(request):
        return f"{group}._target_={request.config[group]._target_}"
    return f"{group}={request.choices[group]}"


def _typed(request: Request) -> set[str]:
    """The keys that stand on the command line."""
    return {word.lstrip("+").partition("=")[0] for word in request.overrides}


def _is_of_shapes(error: BaseException) -> bool:
    """Does PyTorch complain of what it was given, so that its text says enough?"""
    return isinstance(error, (RuntimeError, ValueError)) or "Dimension out of range" in str(error)


@contextmanager
def _blame(request: Request, group: str, what: str = "") -> Iterator[None]:
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
        raised = cause or error
        own = f"{group}._target_" in _typed(request)
        if own and not (what and _is_of_shapes(raised)):  # of somebody's own code the text says little
            what = "forward raised " if what else ""
            text = f"{type(raised).__name__}: {text}{TRACE_HINT}"
        if "DefaultCPUAllocator" in text or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            text = "does not fit into memory"
        raise UserError(f"{_asked(request, group)}: {what}{text}") from error

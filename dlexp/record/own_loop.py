"""Recording in a training loop of one's own: dlexp.watch.

The loop tells one thing, `recorder.step(loss)` between backward and the update. What passes through the
layers is heard from the first forward pass on that comes before a step that is due; the update of a step is
measured when the next one is told, or at the end: nothing but the update has changed the weights by then.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dlexp import folder as folders
from dlexp.errors import UserError
from dlexp.record.layers import Listener
from dlexp.record.probes import NO_GRADIENT, NOT_RUN, QUANTITIES
from dlexp.record.recorder import Recorder
from dlexp.record.schedule import Schedule, schedule
from dlexp.record.sinks import MetricLines, RecordLines, Sink, finite
from dlexp.record.summary import first_bad_layer, layer_entries, versions
from dlexp.record.tensorboard import TensorBoard, how_to_read

HELD = (folders.RECORDS, folders.METRICS, folders.SUMMARY, folders.PLAN)
TAKEN = ("step", "layer", "reasons", "over_time", *QUANTITIES)  # other things in a record have these names

NOTHING_RAN = (
    "watch: no layer of the model ran in this step, so there is nothing to record; allowed: the model that"
    " the loss comes from, called as a module; not one of torch.jit, nor nn.DataParallel over several devices"
)
NO_BACKWARD = (
    "watch: no layer has a gradient; allowed: recorder.step(loss) behind loss.backward(), before the update"
)
SHARDED = (
    "watch: the parameters of {} are spread over processes; allowed: a whole model in each process, as in"
    " DistributedDataParallel"
)
BEHIND_UPDATE = (
    "watch: the weights changed between forward and recorder.step(loss); allowed: recorder.step(loss) behind"
    " loss.backward(), before optimizer.step()"
)
NO_UPDATE = (
    "watch: no update between two calls of recorder.step: the numbers of steps are not those of updates;"
    " allowed: once an update, with accumulated gradients behind the last micro-batch"
)
NEVER = "watch: recorder.step was never called, so nothing is recorded; allowed: once an update, before it"
NOT_LOOKED_AT = "not looked at in a loop of one's own"
NO_LAYERS = {"quantities": [], "looks": [], "recorded": {"first": None, "last": None}, "layers": []}


class OwnLoop:
    """Records a model while a loop of somebody's own trains it; a context manager, made by `dlexp.watch`.

    In a process group only the process of rank 0 records; in the others nothing happens.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | Path,
        every: int | str | Schedule = 10,
        *,
        steps: int | None = None,
        tensorboard: bool = True,
        hyperparameters: Mapping[str, Any] | None = None,
        judge: Callable[..., None] | None = None,
        draw: Callable[..., None] | None = None,
    ) -> None:
        """See `dlexp.watch`; nothing is made or changed before the `with`.

        Args:
            judge: puts a diagnosis into the summary, of the folder, the summary and the event file.
            draw: makes the pictures of a run that has ended, of its folder and `trained`, in seconds.
        """
        _refuse(model)
        self._model = _unwrapped(model)
        self._due: Schedule = lru_cache(maxsize=4)(_schedule(every, steps))  # each step is asked about once
        self._base, self._tensorboard = Path(folder).expanduser(), tensorboard
        self._hyperparameters, self._judge, self._draw = dict(hyperparameters or {}), judge, draw
        for name in HELD:
            if (self._base / name).exists():
                raise UserError(f"watch: {folder}: holds a run or a sweep already ({name}); allowed: another")
        self.folder: Path | None = None  # of the run, below the one that was named
        self.steps = 0  # so many are done
        self._entered = False
        self._records = False  # between the two ends of the `with`
        self._parts = set(self._model.modules())
        self._listener = Listener(self._model)
        if not self._listener.layers:
            raise UserError(
                f"watch: {type(self._model).__name__} has no layer: no module with a weight matrix"
            )
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self._at_forward: int | None = None  # how often these had been changed by then
        self._at_step: int | None = None
        self._may_skip = False  # a scaler leaves an update out whose gradients are not finite
        self._board: TensorBoard | None = None
        self._sinks: list[Sink] = []
        self._recorder: Recorder | None = None  # there is one from the first step on that is due
        # Numbers of the last step told, from then until its update is measured.
        self._measured: dict[str, Tensor | float] | None = None
        self._waiting: Any = None  # the handle of the hook that waits for a forward pass
        self._order: dict[nn.Module, None] = {}  # in which modules ran first
        self._whole_run = ExitStack()
        self._uncompiled = ExitStack()
        self._listens = False  # is this step to be recorded?
        self._saw_something = False
        self._metrics: dict[str, float | None] = {}

    def __enter__(self) -> OwnLoop:
        """Make the run folder.

        Raises:
            UserError: it cannot be made.
        """
        self._entered = True
        self._started, self._begun = datetime.now().astimezone(), time.perf_counter()
        self._due(0)  # a schedule that cannot be asked makes no folder
        # How we wait is no trouble to torch.compile, but each step that is due would be told that it may be.
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
        self._whole_run.callback(_take_away, warnings.filters[0])
        if _is_first_process():
            self.folder = folders.create(str(self._base.parent), self._base.name, self._started)
            self._whole_run.enter_context(folders.locked(self.folder))
            self._records = True
            if self._due(0):
                self._wait()
        return self

    def step(self, loss: Tensor | float, *, scaler: Any = None, **numbers: Tensor | float) -> None:
        """Between backward and the update, once an update. Costs nothing on steps that are not due.

        Args:
            loss: of the step, without what a scaler multiplies it with; one number.
            scaler: the `torch.amp.GradScaler` of this step, after its `unscale_(optimizer)`.
            **numbers: more of the step, one number each: accuracy, lr, ...

        Raises:
            UserError: what is given cannot be used, or nothing was seen of the model.
        """
        self._check_entered()
        if not self._records:
            return
        if self._recorder:
            self._settle(goes_on=True)
            self._recorder.due(self.steps)  # writes what has waited long enough
        if self._listens:
            self._measure(self._recorder or self._begin(), {"loss": loss, **numbers}, scaler)
            self._rest()
        self.steps += 1
        if self._due(self.steps):
            self._wait()

    def scalars(self, step: int, numbers: Mapping[str, Tensor | float]) -> None:
        """Keep numbers of the whole network after a step, e.g. {"loss/validation": 0.3, "f1/test": 0.9}."""
        self._check_entered()
        if not self._records:
            return
        plain = {name: _plain(name, x) for name, x in numbers.items()}
        (self._recorder or self._begin()).scalars(step, plain)
        self._metrics |= {name: finite(x) for name, x in plain.items()}

    def _check_entered(self) -> None:
        if not self._entered:
            raise UserError("watch: nothing is recorded yet; allowed: with watch(...) as recorder: ...")

    @property
    def diverged(self) -> bool:
        """Was the loss of a recorded step not finite? What comes after such a step is not recorded."""
        return self._recorder is not None and self._recorder.diverged

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as it was, and write the summary, whatever happened."""
        if not self._records:
            self._whole_run.close()
            return
        self._records = False
        status = "finished" if kind is None else "failed" if issubclass(kind, Exception) else "interrupted"
        told = " ".join(f"{type(error).__name__}: {error}".split()) if status == "failed" else None
        with self._whole_run:
            try:
                self._rest()
                if self._recorder is None:
                    self._begin()
                self._settle(goes_on=False)
            except Exception as problem:  # a full disk or a lost device must not cost the summary as well
                if kind is None:
                    status, told = "failed", " ".join(f"{type(problem).__name__}: {problem}".split())
                    raise
            finally:
                self._close(status, told)
        if not self.steps and kind is None:
            warnings.warn(NEVER, stacklevel=2)

    def _wait(self) -> None:
        """Before a step that is due: listen from the next forward pass on.

        Until then nothing hangs on the model, so that it can be copied and saved between two steps.
        """
        if self.diverged:
            return
        self._listens = True
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            # What is compiled has no layers: a step that is recorded runs as it was written.
            self._uncompiled.enter_context(torch.compiler.set_stance("force_eager"))
        self._waiting = register_module_forward_pre_hook(self._on_any_module)

    def _on_any_module(self, module: nn.Module, args: object) -> None:
        if module not in self._parts:
            return
        if self._at_forward is None:
            self._at_forward = self._changes()
        if self._recorder is None:
            self._order.setdefault(module)
            if not self._listener.attached and torch.is_grad_enabled():
                self._listener.attach()
        elif self._waiting and torch.is_grad_enabled():
            self._waiting.remove()
            self._waiting = None
            self._recorder.watch()

    def _rest(self) -> None:
        """Leave the model alone until the next `_wait`."""
        if self._waiting:
            self._waiting.remove()
            self._waiting = None
        self._uncompiled.close()
        self._listener.detach()
        if self._recorder:
            self._recorder.rest()
        self._listens, self._at_forward = False, None

    def _begin(self) -> Recorder:
        """Number the layers in the order in which they have just run, and open the files."""
        assert self.folder is not None
        heard = self._listener
        devices = {t.device for t in (*self._model.parameters(), *(call.a for call in heard.calls))}
        if len(devices) > 1:
            found = ", ".join(sorted(map(str, devices)))
            raise UserError(f"watch: the layers are on several devices ({found}); allowed: a model on one")
        paths = {module: path for path, module in self._model.named_modules()}
        order = [paths[module] for module in self._order if module in paths]
        self._recorder = Recorder(self._model, self._due, self._sinks, order, heard=heard)
        names = [layer.name for layer in self._recorder.layers]
        self._sinks.append(RecordLines(self.folder / folders.RECORDS, names, QUANTITIES))
        self._sinks.append(MetricLines(self.folder / folders.METRICS))
        if self._tensorboard:
            self._board = board = TensorBoard(self.folder, names, QUANTITIES)
            self._sinks.append(board)
            board.text("network", f"```\n{self._model}\n```\n")
            board.text("how_to_read", how_to_read())
        return self._recorder

    def _measure(self, recorder: Recorder, numbers: dict[str, Tensor | float], scaler: Any) -> None:
        """Everything but the update."""
        device = next(self._model.parameters()).device
        numbers = {name: _scalar(name, x, device) for name, x in numbers.items()}
        recorder.probe(_scale(scaler))
        if not self._saw_something:
            if all(why == NOT_RUN for why in recorder.missing("activation_rms")):
                raise UserError(NOTHING_RAN)
            if all(why == NO_GRADIENT for why in recorder.missing("grad_norm")):
                raise UserError(NO_BACKWARD)
            self._saw_something = True
        self._measured, self._at_step, self._may_skip = numbers, self._changes(), scaler is not None
        if self._at_forward is not None and self._at_forward != self._at_step:
            raise UserError(BEHIND_UPDATE)

    def _settle(self, *, goes_on: bool) -> None:
        """The step before, if it was recorded, has been updated by now."""
        if self._measured is None or self._recorder is None:
            return
        numbers, self._measured = self._measured, None
        changed = self._changes() != self._at_step
        self._recorder.updated(stepped=changed or not self._may_skip)
        if goes_on and not changed and not self._may_skip and not self._recorder.changed():
            warnings.warn(NO_UPDATE, stacklevel=3)
        self._recorder.log(self.steps - 1, numbers, {})

    def _changes(self) -> int:
        """How often the weights that are trained were changed in place; through `.data` it is not counted."""
        return sum(p._version for p in self._trained)

    def _close(self, status: str, error: str | None) -> None:
        recorder, summary = self._recorder, None
        try:
            if recorder:
                recorder.close()
            summary = self._summary(status, error)
            self._afterwards("diagnosis", self._judge, summary, self._board)
            if self._board and self._hyperparameters:
                ended = status == "finished" and not self.diverged
                self._board.hyperparameters(self._hyperparameters, list(self._metrics), success=ended)
            for sink in self._sinks:
                sink.close()
        finally:
            assert self.folder is not None
            folders.write_json(self.folder / folders.SUMMARY, summary or self._summary(status, error))
        if self._board and status != "interrupted":
            trained = time.perf_counter() - self._begun
            self._afterwards("pictures", self._draw, trained=trained)

    def _afterwards(self, what: str, make: Callable[..., None] | None, *given: Any, **named: Any) -> None:
        """Something that is made of a run that has ended, which is whole without it."""
        try:
            if make:
                make(self.folder, *given, **named)
        except Exception as problem:
            warnings.warn(f"watch: no {what}: {type(problem).__name__}: {problem}", stacklevel=4)

    def _summary(self, status: str, error: str | None) -> dict[str, Any]:
        """As that of a run of dlexp's own, as far as it is known here."""
        recorder, spoiled, seconds = self._recorder, None, time.perf_counter() - self._begun
        if recorder and recorder.diverged and recorder.last:
            step = recorder.last.step
            spoiled = {"step": step, **first_bad_layer(recorder, step)}
            status = "diverged" if status == "finished" else status
        return {
            "status": status,
            "error": error,
            "diverged": spoiled,
            "steps": self.steps,
            "metrics": self._metrics,
            "network": type(self._model).__name__,
            "script": sys.argv[0],  # whose loop it is
            "hyperparameters": self._hyperparameters,
            "device": str(next(self._model.parameters()).device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "timing": {
                "started": self._started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "steps_per_second": round(self.steps / seconds, 1),
            },
            **(layer_entries(recorder, unlooked=NOT_LOOKED_AT) if recorder else NO_LAYERS),
        }


def _schedule(every: int | str | Schedule, steps: int | None) -> Callable[[int], bool]:
    """
    Raises:
        UserError: `every` and `steps` say no schedule.
    """
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise UserError(f"watch: steps={steps!r}: how long the loop is; allowed: a whole number from 1")
    if callable(every):
        return lambda step: bool(every(step))
    if every == "auto" and steps is None:
        raise UserError(
            "watch: every=auto: how long is the loop? allowed: steps= beside it, or a whole number"
        )
    if every == "auto" or (isinstance(every, int) and not isinstance(every, bool) and every > 0):
        return schedule(every, steps) if steps else lambda step: step % int(every) == 0
    raise UserError(
        f"watch: every={every!r}: no schedule; allowed: a whole number from 1, auto, a function of the step"
    )


def _take_away(entry: tuple[Any, ...]) -> None:
    """A filter of warnings, unless somebody else did."""
    if entry in warnings.filters:
        warnings.filters.remove(entry)  # type: ignore[attr-defined]


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model that is inside torch.compile, DistributedDataParallel and the like."""
    while [*model._modules] in (["module"], ["_orig_mod"]) and not any(model.parameters(recurse=False)):
        (model,) = model.children()
    return model


def _refuse(model: nn.Module) -> None:
    """
    Raises:
        UserError: it is a model that cannot be recorded.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"watch: {type(model).__name__}: not a model; allowed: a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("watch: a model of torch.jit runs no hooks; allowed: the module it was made of")
    for module in model.modules():
        kind = type(module).__name__
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise UserError(f"watch: {kind} over several devices; allowed: DistributedDataParallel")
        if "FullyShardedDataParallel" in kind:
            raise UserError(SHARDED.format(kind))
        compiled = kind == "OptimizedModule" or getattr(module, "_compiled_call_impl", None)
        if compiled and not hasattr(torch.compiler, "set_stance"):
            raise UserError(
                f"watch: a model under torch.compile needs torch 2.6 or newer, this is {torch.__version__};"
                " allowed: the model without it"
            )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise UserError(
                f"watch: {name} has no shape before the first forward pass; allowed: run one before"
            )
        if type(parameter).__name__ == "DTensor":
            raise UserError(SHARDED.format(type(model).__name__))


def _is_first_process() -> bool:
    """Of those that train together, if there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def _scale(scaler: Any) -> float:
    """What the loss was multiplied by in backward.

    Raises:
        UserError: the gradients of the weights still are.
    """
    if scaler is None or not scaler.is_enabled():
        return 1.0
    stages = [state["stage"].name for state in getattr(scaler, "_per_optimizer_states", {}).values()]
    if "UNSCALED" not in stages:
        raise UserError(
            "watch: scaler: gradients are still scaled; allowed: scaler.unscale_(optimizer) before it"
        )
    return float(scaler.get_scale())


def _scalar(name: str, x: Tensor | float, device: torch.device) -> Tensor | float:
    """One number; what the loop does to a tensor afterwards does not matter.

    Raises:
        UserError: it is none, or its name means something else in a record.
    """
    if name in TAKEN:
        raise UserError(f"watch: {name}=: is a column of the records already; allowed: another name")
    if isinstance(x, Tensor) and x.numel() == 1:
        return x.detach().to(device, copy=True)
    return _plain(name, x)


def _plain(name: str, x: Tensor | float) -> float:
    """A number on the host.

    Raises:
        UserError: it is none.
    """
    try:
        return float(x.detach() if isinstance(x, Tensor) else x)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"{type(x).__name__}"
        raise UserError(f"watch: {name}: {what}; allowed: one number") from error

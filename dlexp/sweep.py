"""A sweep: one command, many runs. Hydra's multirun plans and launches them; here is what is around it.

Before: a folder of its own, or that of a sweep which goes on. In every job: a folder named by its words,
and a summary whatever happens. While it runs: a line for each job that ends, and one for the whole.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict

from dlexp import folder as folders
from dlexp.compose import Composer, Request, explain
from dlexp.errors import TRACE_HINT, BusyError, UserError
from dlexp.folder import PLAN, TRACE
from dlexp.words import folder_name, quoted

NO_BEST_TRIAL = ("Record does not exist", "No trials are completed yet")  # all failed, as has been told
STUDY = "study.db"  # Optuna's storage in the folder


# --- the words of the command ---------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """The words of a sweep, apart from its options: key -> values, in the order in which they stand."""

    values: dict[str, tuple[str, ...]]
    swept: tuple[str, ...]

    def grid(self) -> list[list[str]]:
        """The words of each job of a grid, in Hydra's order."""
        words = [[f"{key}={value}" for value in values] for key, values in self.values.items()]
        return [list(job) for job in itertools.product(*words)]

    def samples(self) -> list[list[str]]:
        """Jobs of a grid, so many that every word stands in one of them."""
        first = {key: values[0] for key, values in self.values.items()}
        varied = [first | {key: value} for key in self.swept for value in self.values[key]]
        return [[f"{key}={value}" for key, value in job.items()] for job in varied or [first]]


def parse(words: Sequence[str]) -> Command:
    """Read words as Hydra does, e.g. ["seed=0,1", "model.depth=2"].

    Raises:
        UserError: one of them cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as error:
        raise UserError(*explain(error)) from error
    values: dict[str, tuple[str, ...]] = {}
    swept = []
    for override in parsed:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = (override.get_value_element_as_str(),)
            continue
        swept.append(key)
        if override.is_discrete_sweep():
            values[key] = tuple(map(str, override.sweep_string_iterator()))
        else:
            values[key] = (str(override.input_line).partition("=")[2],)
    return Command(values, tuple(swept))


def differences(before: Command, now: Command) -> tuple[list[str], bool]:
    """What two commands differ in, a line each, and whether only values that are swept were added."""
    lines, only_added = [], True
    for key in dict.fromkeys((*before.values, *now.values)):
        if key.startswith("hydra"):  # how jobs are launched does not change them
            continue
        old, new = before.values.get(key, ()), now.values.get(key, ())
        if old != new:
            lines.append(f"{key}: was {','.join(old) or 'not there'}, is {','.join(new) or 'not there'}")
            only_added &= set(old) <= set(new) and key in before.swept and key in now.swept
    return lines, only_added


# --- the folder ------------------------------------------------------------------------------------


def new_folder(words: Sequence[str], outputs: str) -> Path:
    """outputs/sweep/date_time, or the one that `words` name; sweeps of the same second get _2, _3, ...

    Raises:
        UserError: no folder can be made there, or it holds a sweep already.
    """
    for word in words:
        key, _, value = word.partition("=")
        if key == "hydra.sweep.dir" and "${" not in value:
            return _claim(Path(value.strip("'\"")))
    return folders.create(outputs, "sweep", datetime.now(), inside=".")


def _claim(folder: Path) -> Path:
    """A folder that somebody named."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).touch(exist_ok=False)  # fails if another process made it just now
    except FileExistsError as error:
        raise UserError(
            f"hydra.sweep.dir={folder}: holds a sweep already; allowed: another folder, resume={folder}"
        ) from error
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder}: cannot be made: {error.strerror}") from error
    return folder


def unmake(folder: Path) -> bool:
    """Take away the folder of a sweep that came to no job; False, and nothing done, if it did."""
    ours = {PLAN, "multirun.yaml", STUDY}
    if any(path.name not in ours for path in folder.iterdir()):
        return False
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return True


def refuse_other(resume: str, before: Sequence[str], now: Sequence[str], *, extend: bool = False) -> None:
    """Make sure that a command goes on with what an earlier one began.

    Raises:
        UserError: it differs, more than by values added to keys that are swept with `extend`.
    """
    lines, only_added = differences(parse(before), parse(now))
    if lines and not (extend and only_added):
        hint = "; resume.extend=true adds jobs" if only_added else "; allowed: the same words, or none"
        raise UserError(*(f"resume={resume}: {line}{hint}" for line in lines))


def plan_of(folder: Path) -> dict[str, Any]:
    """What the sweep in `folder` was asked for.

    Raises:
        UserError: there is no sweep.
    """
    if not (found := folders.read_json(folder / PLAN)):
        raise UserError(f"resume={folder}: holds no sweep ({PLAN}); allowed: a sweep's folder")
    return found


def latest(outputs: str, pattern: str, marker: str) -> Path:
    """The folder of that kind that was begun last.

    Raises:
        UserError: there is none.
    """
    found = [path for path in Path(outputs).expanduser().glob(pattern) if (path / marker).exists()]
    if not found:
        raise UserError(f"resume=latest: nothing in {outputs} to go on with; allowed: resume=PATH")
    return max(found, key=lambda path: (path / marker).stat().st_mtime_ns)


# --- in every job ----------------------------------------------------------------------------------


def placed(request: Request, folder: Path, number: int) -> Request | None:
    """The request with the run folder of its job: a name that TensorBoard's list of runs can show.

    None: it is not this job's turn (`Sweep.launch`).
    """
    plan = plan_of(folder)
    name = folder_name(_of_swept(request.overrides, plan["swept"])) or str(number)
    if plan["only"] is not None and name not in plan["only"]:
        return None
    return replace(request, folder=folder / name, swept=tuple(plan["swept"]))


def _of_swept(words: Sequence[str], swept: Sequence[str]) -> list[str]:
    """The words of a job that set what is swept."""
    return [word for word in words if word.partition("=")[0].lstrip("+~") in swept]


def job(request: Request) -> float | None:
    """Run a job of a sweep, or what is left of it, and leave a summary whatever happens.

    Returns:
        The objective, for a sweeper that searches; None of a job that failed.
    """
    from dlexp import runner

    assert request.folder is not None
    try:
        summary = runner.run(request, quiet=True, resume=True).summary
    except (Exception, SystemExit) as error:  # the next job must not suffer from it
        lines = error.lines if isinstance(error, UserError) else [f"{type(error).__name__}: {error}"]
        reason = " ".join("; ".join(lines).split())
        # What another process is at work on, or what can still be gone on with, is not to be lost.
        lost = isinstance(error, BusyError) or folders.status(request.folder) == "interrupted"
        if not lost and (not isinstance(error, UserError) or TRACE_HINT in reason):
            reason = reason.replace(TRACE_HINT, "")
            with contextlib.suppress(OSError):
                request.folder.mkdir(parents=True, exist_ok=True)
                (request.folder / TRACE).write_text(traceback.format_exc(), encoding="utf-8")
        if lost or not _write_failed(request, reason):
            print(f"dlexp: {request.folder.name}: {reason}", file=sys.stderr, flush=True)
        return None
    return _objective(summary, request)


def _write_failed(request: Request, reason: str) -> bool:
    """See that the summary says so; False: there is nowhere to write it."""
    assert request.folder is not None
    if folders.status(request.folder) == "failed":  # the run has said so itself
        return True
    asked = {"seed": request.config.seed, "overrides": request.overrides, "choices": request.choices}
    return _write_summary(request.folder, reason, asked)


def _write_summary(folder: Path, reason: str, asked: dict[str, Any]) -> bool:
    """That of a job which failed before it had one."""
    summary = {
        "status": "failed",
        "error": reason,
        "steps": 0,
        **asked,
        "metrics": {},
        "layers": [],
        "timing": {"started": datetime.now().astimezone().isoformat(timespec="seconds")},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folders.write_json(folder / folders.SUMMARY, summary)
    except OSError:
        return False
    return True


def _objective(summary: dict[str, Any], request: Request) -> float:
    """What a search makes as small, or as large, as it can; of a run that diverged the worst there is."""
    name, direction = request.config.objective, request.hydra.sweeper.get("direction")
    worst = -math.inf if str(direction).endswith("maximize") else math.inf
    found = summary["metrics"].get(name)
    return worst if found is None or summary["status"] == "diverged" else float(found)


# --- around all of them ----------------------------------------------------------------------------


class Sweep:
    """The sweep that this process started; Hydra tells it when the jobs are about to begin."""

    def __init__(self, folder: Path, typed: Sequence[str], words: Sequence[str], *, resumed: bool) -> None:
        """A sweep in `folder`, asked for by options as `typed`, "-m" say, and `words`."""
        self.folder, self.typed, self.words, self.resumed = folder, list(typed), list(words), resumed
        self.begun = False
        self.error: Exception | None = None
        self._planned: dict[str, list[str]] = {}  # of a grid: the jobs, and their words
        self._only: list[str] | None = None

    def launch(self, hydra: Callable[[list[str]], None]) -> None:
        """Let Hydra run the jobs on these words, also those that another one takes down with it.

        A process that the kernel kills, for want of memory say, ends the pool of joblib that it belongs
        to. The jobs that had not begun run then in a new pool, and after them each of those that were
        under way by itself: one that is killed once more has failed.

        Raises:
            BrokenExecutor: none of the jobs was under way.
            Exception: what Hydra or a launcher raises.
        """
        suspects: list[str] = []
        while broken := self._round(hydra, None if not suspects else self._missing(suspects)):
            found = [name for name in self._missing(suspects) if (self.folder / name).is_dir()]
            if not found:
                raise broken
            suspects += found
            print("dlexp: a process was killed; what it took down is run again", file=sys.stderr)
            if not self._missing(suspects):
                break
        for name in suspects:
            if broken := self._round(hydra, [name]):
                codes = re.search(r"\{(.*?)\}", str(broken))
                reason = f"its process was killed{f' ({codes[1]})' if codes else ''}; out of memory?"
                _write_summary(self.folder / name, reason, {"overrides": self._planned[name], "choices": {}})

    def _round(self, hydra: Callable[[list[str]], None], only: list[str] | None) -> BrokenExecutor | None:
        """Run all jobs or `only` some; returns what took the pool of processes down, if that happened."""
        self._only = only
        try:
            hydra([*self.typed, *self.words, f"hydra.sweep.dir={quoted(str(self.folder))}"])
        except BrokenExecutor as error:
            return error
        except ValueError as error:
            if str(error).rstrip(".") not in NO_BEST_TRIAL:
                raise
        return None

    def _missing(self, suspects: Sequence[str]) -> list[str]:
        """The planned jobs that have no summary, but for the suspects."""
        missing = [name for name in self._planned if folders.status(self.folder / name) is None]
        return [name for name in missing if name not in suspects]

    def begin(self, config: DictConfig) -> None:
        """Hydra has composed the sweep's config and has started nothing yet."""
        searches = "sampler" in config.hydra.sweeper
        params = config.hydra.sweeper.get("params") or {}
        command = parse([*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task])
        swept = [key.lstrip("+~") for key in command.swept]  # as it stands in a job's config
        loader = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = composer = Composer(loader)  # type: ignore[method-assign]
        if searches:
            jobs = config.hydra.sweeper.n_trials
            _prepare_study(config, self.folder, resumed=self.resumed or self.begun)
        else:
            for words in command.samples():  # a word that cannot be used is told before anything else
                composer(config, words)
            asked = [_of_swept(job, swept) for job in command.grid()]
            self._planned = {folder_name(words) or str(n): words for n, words in enumerate(asked)}
            jobs = len(self._planned)
        if not self.begun:
            kind = " ".join(f"{key}={','.join(command.values[key])}" for key in command.swept)
            count = "1 job" if jobs == 1 else f"{jobs} jobs"
            print(f"sweep       {count}{kind and ': '}{kind}\nfolder      {self.folder}", flush=True)
        plan = {
            "typed": self.typed,
            "words": self.words,
            "swept": swept,
            "order": {key.lstrip("+~"): command.values[key] for key in command.swept},
            "jobs": jobs,
            "planned": self._planned,
            "only": self._only,  # their turn it is; null: that of all
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        folders.write_json(self.folder / PLAN, plan)
        self.begun = True


_current: Sweep | None = None  # of this process, which runs one command


def running() -> Sweep | None:
    """The sweep whose jobs this process launches; None in a process that was launched."""
    return _current


@contextmanager
def current(sweep: Sweep) -> Iterator[None]:
    """The sweep that `Begin` is to tell."""
    global _current
    _current = sweep
    try:
        yield
    finally:
        _current = None


class Begin(Callback):
    """Hydra's callback: named in config.yaml, called before the first job of a sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if _current is None:
            return
        try:
            _current.begin(config)
        except Exception as error:  # Hydra would make a warning of it and go on
            _current.error = error

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        """Hydra keeps what each job returned until the last one ends; its two configs nobody asks for."""
        job_return.cfg = job_return.hydra_cfg = None


def _prepare_study(config: DictConfig, folder: Path, *, resumed: bool) -> None:
    """A study that can be taken up again, seeded; what an earlier process left undone is asked for first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)  # we tell what fails
    sweeper = config.hydra.sweeper
    storage = sweeper.storage or f"sqlite:///{(folder / STUDY).resolve()}"
    name = sweeper.study_name or "dlexp"
    done = _take_up(name, storage) if resumed else 0
    settings: dict[str, Any] = {
        "storage": storage,
        "study_name": name,
        "n_trials": max(0, sweeper.n_trials - done),
        "max_failure_rate": 1.0,  # a failed job is a finding
    }
    if "seed" in sweeper.sampler and sweeper.sampler.seed is None:
        # Started anew with the same seed a sampler would suggest the same points again.
        settings["sampler.seed"] = int(config.seed) + done
    with flag_override(config.hydra, "readonly", False), open_dict(config.hydra):
        for key, value in settings.items():
            OmegaConf.update(config.hydra, f"sweeper.{key}", value)
            # Each job is composed anew, and has to come to the same sweeper.
            text = quoted(value) if isinstance(value, str) else value
            config.hydra.overrides.hydra.append(f"hydra.sweeper.{key}={text}")


def _take_up(name: str, storage: str) -> int:
    """Give trials that were under way back to the study; returns how many are done."""
    import optuna
    from optuna.trial import TrialState

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # killed before it was made
        return 0
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(study.get_trials(states=(TrialState.COMPLETE,)))

"""The launching of jobs: what Hydra is told before, and what is done about jobs that others take down."""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dlexp import folder as folders
from dlexp.compose import Composer, apart
from dlexp.errors import UserError
from dlexp.folder import PLAN
from dlexp.sweep.command import Command, job_name, parse, same
from dlexp.sweep.job import write_failed
from dlexp.sweep.study import NO_BEST_TRIAL, Search
from dlexp.words import ARM, key_of, quoted, refuse_what_arms_say, split_words, unquoted

PERIOD = 0.5  # seconds between two looks at jobs that still go on
LONGEST_WAIT = 30.0  # seconds, for jobs that were asked to end


class Sweep:
    """The sweep that this process started; Hydra tells it when the jobs are about to begin."""

    def __init__(self, folder: Path, typed: Sequence[str], words: Sequence[str], *, resumed: bool) -> None:
        """A sweep in `folder`, asked for by options as `typed`, "-m" say, and `words`."""
        self.folder, self.typed, self.words = folder, list(typed), list(words)
        self.begun = False
        self._before = folders.read_json(folder / PLAN) if resumed else {}
        self._search = Search(resumed=resumed)
        self._planned: dict[str, list[str]] = {}  # of a grid: the jobs, and their words
        self._only: list[str] | None = None

    def launch(self, hydra: Callable[[list[str]], None]) -> None:
        """Let Hydra run the jobs, also those that another one takes down with it.

        A process that the kernel kills, for want of memory say, ends the pool of joblib that it belongs
        to. Of a grid the jobs that had not begun run then in a new pool, and after them each of those that
        were under way by itself: one that is killed once more has failed. A search goes on with other
        points. Other launchers let the other jobs run on: they are waited for.

        Raises:
            BrokenExecutor: none of the jobs was under way.
            Exception: what Hydra or a launcher raises.
        """
        suspects: list[str] = []
        try:
            while broken := self._round(hydra, self._missing(suspects) if suspects else None):
                found = [name for name in self._under_way() if name not in suspects]
                if not found:
                    raise broken
                print("dlexp: a process was killed; what it took down is run again", file=sys.stderr)
                if not self._planned:
                    self._give_up(found, _killed(broken))
                    continue
                suspects += found
                if not self._missing(suspects):
                    break
            for name in suspects:
                if broken := self._round(hydra, [name]):
                    self._give_up([name], _killed(broken))
        except (UserError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            while any(folders.at_work(path.parent) for path in self.folder.glob(f"*/{folders.CONFIG}")):
                time.sleep(PERIOD)
            self._give_up(self._under_way(), f"its process ended without a word ({type(error).__name__})")
            raise

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

    def _under_way(self) -> list[str]:
        """The jobs that have begun and have no summary."""
        begun = [path.parent.name for path in sorted(self.folder.glob(f"*/{folders.CONFIG}"))]
        return [name for name in begun if folders.status(self.folder / name) is None]

    def _give_up(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            asked = {"overrides": self._planned.get(name, name.split(",")), "choices": {}}
            write_failed(self.folder / name, reason, asked)

    def begin(self, config: DictConfig) -> None:
        """Hydra has composed the sweep's config and has started nothing yet."""
        from dlexp.build.check import check

        params: Any = config.hydra.sweeper.get("params") or {}
        loader: Any = GlobalHydra.instance().config_loader()
        typed = parse(config.hydra.overrides.task, loader)
        composer = Composer(loader)
        if typed_too := [key for key in params if key in map(key_of, typed.values)]:
            composer = Composer(loader, copy.deepcopy(config))
            with open_dict(params), read_write(params):  # what is typed stands in the place of what is swept
                for key in typed_too:
                    del params[key]
        words = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        command = parse(words, loader)
        refuse_what_arms_say(config.hydra.overrides.task, command.values.get(ARM, ()))
        plan = self._names(command, config)
        loader.load_sweep_config = composer
        if "sampler" in config.hydra.sweeper:
            jobs = config.hydra.sweeper.n_trials
            self._search.prepare(config, self.folder, again=self.begun)
        else:
            for job in command.samples():  # what cannot be used is told before anything else
                check(replace(apart(composer(config, job)), swept=tuple(plan["swept"])))
            self._planned = {job_name(job, plan, n): job for n, job in enumerate(command.grid())}
            jobs = len(self._planned)
        if not self.begun:
            count, kind = "1 job" if jobs == 1 else f"{jobs} jobs", str(command)
            print(f"sweep       {count}{kind and ': '}{kind}\nfolder      {self.folder}", flush=True)
        swept = set(plan["swept"])
        plan |= {
            "typed": self.typed,
            "words": self.words,
            "jobs": jobs,
            "planned": {
                name: [word for word in job if key_of(word) in swept] for name, job in self._planned.items()
            },
            "only": self._only,  # their turn it is; null: that of all
            "started": folders.now(),
        }
        folders.write_json(self.folder / PLAN, plan)
        self.begun = True

    def refuse(self, error: Exception) -> None:
        """Let no job be composed, and so none be launched."""

        def composed(*_: object, **__: object) -> DictConfig:
            raise error

        loader: Any = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = composed

    def _names(self, command: Command, config: DictConfig) -> dict[str, Any]:
        """What names jobs: the swept keys, of a single job all, and those that an earlier command swept.

        Raises:
            UserError: a key is newly swept, without the value that it had so far.
        """
        before = self._before.get("swept") or []
        named = {key_of(key): key for key in command.swept or (() if before else tuple(command.values))}
        late = dict(self._before.get("late") or {})
        for key in [key for key in named if before and key not in before]:
            so_far = self._so_far(key, config)
            kept = next((x for x in command.values[named[key]] if same(x, so_far)), None)
            if kept is None:
                raise UserError(f"{key}: was {so_far} so far, and has to stay among its values; add {so_far}")
            late[key] = unquoted(kept)
        swept = list(dict.fromkeys((*before, *named)))
        values = {key_of(key): value for key, value in command.values.items()}
        return {"swept": swept, "late": late, "order": {key: values.get(key, ()) for key in swept}}

    def _so_far(self, key: str, config: DictConfig) -> str:
        typed = split_words(self._before.get("words") or ())
        if key in typed:
            return typed[key]
        found = config.hydra.runtime.choices.get(key)
        return str(OmegaConf.select(config, key) if found is None else found)

    def end_jobs(self) -> None:
        """Ask the jobs that other processes of ours are at work on to end, and wait until they have."""
        locks = self.folder.glob(f"*/{folders.CONFIG}/{folders.LOCK}")
        asked = [path for path in locks if _ask_to_end(path)]
        deadline = time.monotonic() + LONGEST_WAIT
        while any(path.exists() for path in asked) and time.monotonic() < deadline:
            time.sleep(PERIOD / 5)


def _ask_to_end(lock: Path) -> bool:
    """Send SIGTERM to the process that holds it, if this process has started that one."""
    try:
        pid = int(lock.read_text())
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if parent == os.getpid() != pid:
            os.kill(pid, signal.SIGTERM)
            return True
    except (OSError, ValueError):  # it has just ended, or this system has no /proc
        pass
    return False


def _killed(broken: BrokenExecutor) -> str:
    codes = re.search(r"\{(.*?)\}", str(broken))
    return f"its process was killed{f' ({codes[1]})' if codes else ''}; out of memory?"


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
            _current.refuse(error)

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        """Hydra keeps what each job returned until the last one ends; its two configs nobody asks for."""
        job_return.cfg = job_return.hydra_cfg = None

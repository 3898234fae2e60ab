"""What an experiment has to do: jobs of its sweeps and measuring functions, each in a place of its own.

A job that has ended is not done again, also by another experiment command; one that was killed goes on.
Where a run lies is decided by its words and by a hash of the configuration they change, so another width
or data set is another run, and one more seed adds only its own runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from dlexp import folder as folders
from dlexp.code import CODE
from dlexp.compose import CONFIGS, FREE, Composer, Request, apart, explain, flatten, master
from dlexp.errors import UserError
from dlexp.lab.runs import Run
from dlexp.report.jobs import Job
from dlexp.sweep.command import Command, parse
from dlexp.words import expanded, folder_name, key_of, split_words, unquoted, value

PATIENCE = 5.0  # seconds
PERIOD = 0.2  # seconds between two looks at a run that another process makes
MADE_BY = "made by code"  # beside the numbers of a measuring function
QUIET = (
    "record.tensorboard=false",
    "record.images=false",
)  # hundreds of runs that nobody looks at one by one


@dataclass(frozen=True)
class Task:
    """One job: a run of a sweep, or a call of a measuring function."""

    part: str
    words: tuple[str, ...]  # what distinguishes it in its part
    path: Path  # the run folder, or the file of what was measured
    fixed: tuple[str, ...] = ()  # of a sweep: the words that all of its runs share
    page: Path | None = None  # of a measuring function: where it stands

    @property
    def done(self) -> bool:
        return self.path.is_file() if self.page else folders.ended(self.path)

    def read(self) -> Run:
        """What came of it, whatever that is."""
        words = split_words(expanded(self.words))
        if self.page:
            found = json.loads(self.path.read_text(encoding="utf-8")) if self.done else {}
            made_by = {"versions": {"code": found.pop(MADE_BY, None)}}
            return Run(self.part, words, Job(self.path.stem, words, made_by), None, found)
        summary = folders.read_json(self.path / folders.SUMMARY)
        job = Job(self.path.name, words, summary, begun=self.path.is_dir())
        return Run(self.part, words, job, self.path)


def of_sweep(name: str, words: Sequence[str], outputs: Path) -> list[Task]:
    """The jobs of configs/experiment/<name>.yaml, where `words` change it.

    Words for a swept key stand in place of its values; several values of another key are swept as well;
    the others are the same for all runs.
    """
    values = swept(name, words)
    fixed = (*QUIET, *(word for word in words if key_of(word) not in {key_of(key) for key in values}))
    place = outputs / "lab" / "runs" / f"{name}_{_base(name, fixed)}"
    jobs = Command(values, tuple(values)).grid()
    return [Task(name, tuple(job), place / _run_name(job), fixed) for job in jobs]


def swept(name: str, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What configs/experiment/<name>.yaml sweeps, where `words` change it: key -> values."""
    params = _file(name).get("hydra", {}).get("sweeper", {}).get("params", {})
    found = dict(parse([f"{key}={value}" for key, value in params.items()]).values)
    typed = parse(words)
    return found | {key: own for key, own in typed.values.items() if key in found or key in typed.swept}


def _file(name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    content: Any = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    found: Any = OmegaConf.to_container(content, resolve=False)
    return dict(found)


def of_measure(page: Path, name: str, settings: Mapping[str, Sequence[Any]], outputs: Path) -> list[Task]:
    """The calls of a function of a page: every combination of its settings, the seed among them."""
    slug = page.stem
    source = _digest(*_sources(getattr(load(page), name)))
    place = outputs / "lab" / "measured" / f"{slug}.{name}_{source}"
    combinations = [dict(zip(settings, values, strict=True)) for values in product(*settings.values())]
    jobs = [[f"{key}={value}" for key, value in own.items()] for own in combinations]
    return [Task(name, tuple(job), place / f"{folder_name(job)}.json", (), page) for job in jobs]


def check(tasks: Sequence[Task]) -> dict[Task, Request]:
    """See that what is still to be done can be done, before anything is begun.

    Returns:
        What was composed for it, of some tasks; the others differ in no word that these do not have.

    Raises:
        UserError: a word cannot be used.
    """
    from dlexp.build.check import check as check_request

    seen: set[tuple[str, str]] = set()
    checked: dict[Task, Request] = {}
    for task in tasks:
        if task.page or task.done:
            continue
        new = [word for word in task.words if (task.part, word) not in seen]
        if new:
            seen.update((task.part, word) for word in new)
            checked[task] = _request(task)
            check_request(checked[task])
    return checked


def work(
    tasks: Sequence[Task], jobs: int = 1, checked: Mapping[Task, Request] | None = None
) -> Iterator[Task]:
    """Do what is still to be done; yields each job that has come to its end.

    Args:
        checked: what `check` has composed, so that it is not composed twice.
    """
    left = [task for task in tasks if not task.done]
    if jobs == 1 or len(left) < 2:
        for task in left:
            do(task, (checked or {}).get(task))
            yield task
        return
    context, own = multiprocessing.get_context("spawn"), os.getpid()
    with ProcessPoolExecutor(jobs, context, initializer=_end_after, initargs=(own,)) as pool:
        waiting = {pool.submit(_launched, task): task for task in left}
        try:
            for future in as_completed(waiting):
                future.result()
                yield waiting[future]
        finally:  # of an error or Ctrl-C: what is under way ends, and nothing else is begun
            for future in waiting:
                future.cancel()


def _end_after(parent: int) -> None:
    """End this process, also while it waits, once the one that launched it is gone; a job may stop first."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def do(task: Task, request: Request | None = None) -> None:
    """One job. A run that fails says so in its summary; a measuring function raises."""
    if task.page is None:
        from dlexp.sweep.job import job

        while not task.done:
            if folders.at_work(task.path):  # another experiment command is making this very run
                time.sleep(PERIOD)
                continue
            job(request or _request(task))
            if not folders.at_work(task.path):
                return
        return
    import torch

    settings = {key: value(text) for key, text in split_words(task.words).items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # fastest for small tensors, and the same numbers in whatever process
    try:
        found = getattr(load(task.page), task.part)(**settings)
    finally:
        torch.set_num_threads(threads)
    text = json.dumps({MADE_BY: CODE, **found}, default=float)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    folders.write_whole(task.path, lambda draft: draft.write_text(text, encoding="utf-8"))


def load(page: Path) -> ModuleType:
    """The module of a page, read once."""
    name = f"experiments.{page.stem}"
    for module in (sys.modules.get(name), sys.modules.get("__main__")):
        if module and getattr(module, "__file__", None) and Path(str(module.__file__)).resolve() == page:
            return module
    spec = importlib.util.spec_from_file_location(name, page)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _launched(task: Task) -> None:
    """In a process of its own, which ends if the one that launched it is gone."""
    from dlexp.sweep.job import not_left_alone

    with not_left_alone():
        do(task)


def _request(task: Task) -> Request:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        composer, config = _composer(task.part, task.fixed)
        request = apart(composer(config, [f"experiment={task.part}", *task.fixed, *task.words]))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(*explain(error)) from error
    return replace(request, folder=task.path, swept=tuple(key_of(word) for word in task.words))


@cache
def _composer(part: str, fixed: tuple[str, ...]) -> tuple[Composer, Any]:
    loader, config = master([f"experiment={part}", *fixed])
    return Composer(loader), config


@cache
def _base(part: str, fixed: tuple[str, ...]) -> str:
    """What all runs of a sweep share, in eight letters."""
    from omegaconf import OmegaConf

    _, config = _composer(part, fixed)
    own: Any = OmegaConf.to_container(config, resolve=False)
    content = flatten({key: value for key, value in own.items() if key != "hydra"})
    targets = {key: value.get("_target_") for key, value in own.items() if isinstance(value, dict)}
    kept = {key: value for key, value in content.items() if key not in FREE}
    return _digest(json.dumps([kept, targets], sort_keys=True, default=str))


def _run_name(words: Sequence[str]) -> str:
    """The words, and what the choices among them say in their files."""
    chosen = [(key_of(word), unquoted(word.partition("=")[2])) for word in expanded(words)]
    files = [CONFIGS / key / f"{value}.yaml" for key, value in chosen]
    said = [_content(path) for path in files]
    suffix = f",{_digest(*said)[:4]}" if any(said) else ""
    return f"{folder_name(words)}{suffix}"


@cache
def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _sources(function: Callable[..., Any]) -> list[str]:
    """The source of a function, and of what it names of its own module, whatever that names, and so on."""
    module = inspect.getmodule(function)
    found: dict[str, str] = {}
    todo = [function.__name__]
    while todo:
        name = todo.pop()
        thing = getattr(module, name, None)
        if name in found or getattr(thing, "__module__", None) != getattr(module, "__name__", ""):
            if name not in found and isinstance(thing, (int, float, str, tuple, list, dict, set, frozenset)):
                found[name] = repr(thing)  # a constant
            continue
        found[name] = inspect.getsource(thing)  # type: ignore[arg-type]
        todo += _names(compile(_dedented(found[name]), name, "exec"))
    return [found[name] for name in sorted(found)]


def _dedented(source: str) -> str:
    """Without decorators, which say what is measured when, not how."""
    lines = source.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(("def ", "class ")))
    return "".join(lines[first:])


def _names(code: CodeType) -> list[str]:
    """Not those like __name__, which say who runs the page, and where it lies."""
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return [*(name for name in code.co_names if not name.startswith("__")), *inner]


__all__ = ["Task", "check", "do", "load", "of_measure", "of_sweep", "work"]

"""The command line: words to a config (Hydra), a config to a run, an error to one clear line.

Exit codes: 0 the run ended (diverging is a result, not an error), 1 something broke,
2 the words cannot be used, 130 interrupted from the keyboard, 143 terminated.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import signal
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import dlexp
from dlexp import folder as folders
from dlexp.compose import CONFIGS, MAIN, explain, refuse_options, request
from dlexp.errors import TRACE_HINT, Terminated, UserError
from dlexp.startup import collect_rarely, keep_what_is_freed
from dlexp.sweep import launch
from dlexp.sweep.command import continued
from dlexp.sweep.job import job as run_job
from dlexp.sweep.job import not_left_alone, placed
from dlexp.sweep.place import Place, latest, new_place, plan_of
from dlexp.words import quoted, unquoted


def main() -> None:
    """Run `dlexp` on the words in `sys.argv`."""
    show_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    _prepare()
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"dlexp {dlexp.__version__}, Hydra {hydra.__version__}")
        elif sys.argv[1:2] == ["list"]:
            _list(sys.argv[2:])
        elif sys.argv[1:2] == ["report"]:
            from dlexp.report.command import command

            command(sys.argv[2:])
        elif sys.argv[1:2] == ["doctor"]:
            from dlexp import doctor

            doctor.command(sys.argv[2:])
        else:
            refuse_options(sys.argv[1:])
            _dispatch()
    except BrokenPipeError:  # dlexp --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except Exception as error:
        if show_trace:
            traceback.print_exc()
        _tell(error)


def _prepare() -> None:
    """Set the process up for a command line."""
    collect_rarely()
    keep_what_is_freed()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors to us instead of printing them
    logging.getLogger("torch").setLevel(logging.WARNING)  # Hydra would let its statistics through
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a bar that cannot be written must not end a run
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # model._target_=my_module.MyNet, with my_module.py at hand


def _tell(error: Exception) -> NoReturn:
    """One clear line for each finding, and the exit code."""
    if isinstance(error, UserError):
        lines, code = list(error.lines), 2
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        lines, code = [f"{text}{TRACE_HINT}"], 1
    for line in lines:
        print(f"dlexp: {line}", file=sys.stderr)
    sys.exit(code)


def _list(words: list[str]) -> None:
    """dlexp list [--markdown] [group], dlexp list experiments."""
    from dlexp.report import choices

    if words == ["experiments"]:
        choices.show_experiments(CONFIGS.parent / "experiments")
        return
    markdown, groups = "--markdown" in words, [word for word in words if word != "--markdown"]
    if len(groups) > 1:
        raise UserError(f"list {' '.join(groups)}: one group at a time")
    if not markdown:
        choices.show(CONFIGS, groups[0] if groups else None)
    for group in (groups or choices.groups(CONFIGS)) if markdown else []:
        print(choices.as_markdown(CONFIGS, group))


def _dispatch() -> None:
    """Let Hydra read the command line and call `_task`, once or, in a sweep, for each job."""
    options = get_args_parser().parse_args(sys.argv[1:])
    resume, extend, words = _resume(options.overrides)
    typed = [word for word in sys.argv[1:] if word not in options.overrides]
    if options.help or options.hydra_help or options.cfg or options.info or options.shell_completion:
        _single([*typed, *words])
    elif options.multirun:
        _sweep(typed, words, resume, extend=extend)
    elif resume:
        _go_on(typed, words, resume)
    else:
        _single([*typed, *words])


def _resume(overrides: list[str]) -> tuple[str | None, bool, list[str]]:
    """The words that say where to go on, apart from those that are for Hydra."""
    found: dict[str, str] = {}
    words = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in ("resume", "resume.extend"):
            found[key] = unquoted(value)
        else:
            words.append(word)
    extend = found.get("resume.extend", "false")
    if extend not in ("true", "false"):
        raise UserError(f"resume.extend={extend}: allowed: true, false")
    if "resume" in found and not found["resume"]:
        raise UserError("resume=: allowed: a folder, latest")
    if "resume.extend" in found and "resume" not in found:
        raise UserError("resume.extend: goes with resume=PATH")
    return found.get("resume"), extend == "true", words


@dataclass
class _Single:
    """What passes between us and `_task` around Hydra, which hands on nothing but a config."""

    goes_on: bool = False  # the run folder holds the first part of the run
    called: bool = False  # Hydra has come as far as our own task
    failure: Exception | None = None


_single_run = _Single()


def _task(config: DictConfig) -> float | None:
    """What Hydra calls; launchers call it in other processes, so it is found by its name."""
    own: Any = HydraConfig.get()
    if own.mode == RunMode.MULTIRUN:
        job = placed(request(config, own), Path(own.sweep.dir), own.job.num)
        with nullcontext() if launch.running() else not_left_alone():
            return run_job(job) if job else None
    _single_run.called = True
    try:
        from dlexp import runner

        named = None if own.run.dir == "." else Path(own.runtime.output_dir)
        runner.run(request(config, own, named), resume=_single_run.goes_on)
    except Exception as error:  # carried past Hydra, which would announce it in its own words
        _single_run.failure = error
    return None


def _hydra(words: list[str]) -> None:
    sys.argv[1:] = words
    hydra.main(config_path=str(CONFIGS.resolve()), config_name="config", **MAIN)(_task)()


def _single(words: list[str], *, goes_on: bool = False) -> None:
    """One run."""
    global _single_run
    _single_run = around = _Single(goes_on)
    named = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
    new = [path for word in named for path in (Path(word), *Path(word).parents) if not path.exists()]
    try:
        _hydra(words)
    except Exception as error:
        if around.called or isinstance(error, BrokenPipeError):
            raise
        if named and isinstance(error, OSError):
            raise UserError(f"hydra.run.dir={named[-1]}: cannot be made: {error.strerror}") from error
        raise UserError(*explain(error)) from error
    if around.failure:
        if isinstance(around.failure, UserError):
            _unmake(new)
        raise around.failure


def _unmake(folders: list[Path]) -> None:
    """Take away empty folders, innermost first: Hydra makes the run folder before the words are checked."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _go_on(typed: list[str], words: list[str], resume: str) -> None:
    """The rest of a run that was interrupted, by the words that made it."""
    folder = latest(_outputs(words), "*/*", folders.OVERRIDES) if resume == "latest" else Path(resume)
    try:
        before = [str(word) for word in OmegaConf.load(folder / folders.OVERRIDES)]
    except OSError as error:
        if (folder / folders.PLAN).exists():
            raise UserError(f"resume={resume}: is a sweep; add -m") from error
        what = f"holds no run ({folders.OVERRIDES}); allowed: a run folder"
        raise UserError(f"resume={resume}: {what}") from error
    words = continued(resume, before, words)
    if folders.ended(folder):
        print(f"{folder}: the run has come to its end; nothing is left to do")
        return
    _single([*typed, *words, f"hydra.run.dir={quoted(str(folder))}"], goes_on=True)


def _outputs(words: list[str]) -> str:
    return next((unquoted(word[8:]) for word in words if word.startswith("outputs=")), "outputs")


def _sweep(typed: list[str], words: list[str], resume: str | None, *, extend: bool) -> None:
    """Many runs; ends with exit code 1 if any of them failed."""
    if resume:
        folder = latest(_outputs(words), "sweep/*", folders.PLAN) if resume == "latest" else Path(resume)
        before = plan_of(folder)
        named = resume if resume != "latest" else f"latest ({folder})"
        typed = typed if words else before["typed"]
        words = continued(named, before["words"], words, extend=extend)
        place = Place(folder, frozenset(path.name for path in folder.iterdir()))
    else:
        place = new_place(words, _outputs(words))
    own = [word for word in words if not word.startswith("hydra.sweep.dir=")]
    with folders.locked(place.folder, inside="."):
        _launch(place, launch.Sweep(place.folder, typed, own, resumed=resume is not None))


def _launch(place: Place, sweep: launch.Sweep) -> None:
    """Run the jobs, tell how they go, and what came of them."""
    from rich.console import Console

    from dlexp.report.command import finish
    from dlexp.report.watch import Watch

    console, folder, whole = Console(highlight=False), place.folder, False
    watch = Watch(folder, console)
    if watch.kept:
        console.print(f"kept        {watch.kept} jobs that have ended")

    def end(*_: object) -> NoReturn:
        sweep.end_jobs()  # a launcher would kill them
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        with launch.current(sweep), watch:
            sweep.launch(_hydra)
        whole = True
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if place.unmake():  # the words made no job
            raise UserError(*(error.lines if isinstance(error, UserError) else explain(error))) from error
        raise
    finally:
        if sweep.begun and folder.exists():
            try:
                finish(folder, console)
            except UserError as error:  # a full disk, say: how the jobs ended is more important
                print(f"dlexp: {error}", file=sys.stderr)
            if watch.unfinished or not whole:
                console.print(f"go on       dlexp -m resume={shlex.quote(str(folder))}", soft_wrap=True)
    if watch.failed:
        sys.exit(1)

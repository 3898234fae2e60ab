"""The command line: words to a config (Hydra), a config to a run, an error to one clear line.

Exit codes: 0 the run ended (diverging is a result, not an error), 1 something broke,
2 the words cannot be used, 130 interrupted from the keyboard, 143 terminated.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import dlexp
from dlexp.compose import CONFIGS, VERSION_BASE, Request, explain, refuse_options, request
from dlexp.errors import Terminated, UserError


def main() -> None:
    """Run `dlexp` on the words in `sys.argv`."""
    show_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    _prepare()
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"dlexp {dlexp.__version__}, Hydra {hydra.__version__}")
        elif sys.argv[1:2] == ["list"]:
            _list(sys.argv[2:])
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
        lines, code = [f"{text} (HYDRA_FULL_ERROR=1 shows the trace)"], 1
    for line in lines:
        print(f"dlexp: {line}", file=sys.stderr)
    sys.exit(code)


def _list(words: list[str]) -> None:
    """dlexp list [--markdown] [group]."""
    from dlexp.report import choices

    markdown, groups = "--markdown" in words, [word for word in words if word != "--markdown"]
    if len(groups) > 1:
        raise UserError(f"list {' '.join(groups)}: one group at a time")
    if not markdown:
        choices.show(CONFIGS, groups[0] if groups else None)
    for group in (groups or choices.groups(CONFIGS)) if markdown else []:
        print(choices.as_markdown(CONFIGS, group))


def _dispatch() -> None:
    """Let Hydra read the command line and call us, once or, in a sweep, for each job."""
    failures: list[Exception] = []
    called = False

    def task(config: DictConfig) -> None:
        # In a single run the error is carried past Hydra, which would announce it in its own
        # words; in a sweep Hydra has to see it, to go on with the next job.
        nonlocal called
        called = True
        try:
            _run(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                if isinstance(error, UserError):
                    _unmake([Path(HydraConfig.get().runtime.output_dir)])
                raise
            failures.append(error)

    task.__module__ = __name__
    named = [word.partition("=")[2] for word in sys.argv if word.startswith("hydra.run.dir=")]
    new = [path for word in named for path in (Path(word), *Path(word).parents) if not path.exists()]
    try:
        hydra.main(config_path=str(CONFIGS.resolve()), config_name="config", **VERSION_BASE)(task)()
    except Exception as error:
        if called or isinstance(error, BrokenPipeError):
            raise
        if named and isinstance(error, OSError):
            raise UserError(f"hydra.run.dir={named[-1]}: cannot be made: {error.strerror}") from error
        raise UserError(*explain(error)) from error
    if failures:
        if isinstance(failures[0], UserError):
            _unmake(new)
        raise failures[0]


def _unmake(folders: list[Path]) -> None:
    """Take away empty folders, innermost first: Hydra makes the run folder before the words are checked."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _run(config: DictConfig) -> None:
    from dlexp import runner

    runner.run(_request(config))


def _request(config: DictConfig) -> Request:
    own: Any = HydraConfig.get()
    named = own.mode == RunMode.MULTIRUN or own.run.dir != "."
    return request(config, own, Path(own.runtime.output_dir) if named else None)

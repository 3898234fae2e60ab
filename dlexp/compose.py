"""Words to a config, and what to say when the words make none."""

from __future__ import annotations

import copy
import difflib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import config_loader_impl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from dlexp.errors import UserError
from dlexp.words import ARM, expanded, key_of

# An installed wheel carries the configs inside the package; a checkout has them beside it.
_INSIDE = Path(__file__).with_name("configs")
CONFIGS = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[1] / "configs"

# Hydra 1.4 deprecates `version_base`; 1.3 warns when it is not given.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}

# Hydra 1.4 asks which targets a config may name. Here the person who types the command also owns the
# machine, and a class of their own is meant to work (model._target_=my_package.MyNet).
try:
    from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS  # type: ignore[attr-defined]

    ANY_TARGET: dict[str, Any] = {"_execution_whitelist_": UNSAFE_DISABLE_EXECUTION_CHECKS}
    MAIN: dict[str, Any] = {"execution_whitelist": UNSAFE_DISABLE_EXECUTION_CHECKS}
except ImportError:  # Hydra 1.3
    ANY_TARGET, MAIN = {}, VERSION_BASE

# Hydra keeps its state, and PyTorch its random numbers, in globals: runs of one process take turns.
ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Request:
    """What was asked for, before anything is built."""

    config: DictConfig  # resolved, without Hydra's own part
    choices: dict[str, str]  # group -> the word chosen, e.g. {"model": "mlp"}
    overrides: list[str]  # as typed
    hydra: DictConfig  # Hydra's own part, for the record
    folder: Path | None = None  # the run folder if somebody named it; None: dlexp makes one
    swept: tuple[str, ...] = ()  # of a job of a sweep: the keys that differ between jobs


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Request:
    """The config that `overrides` make of configs/config.yaml, without touching Hydra's global state.

    Args:
        config_dir: a folder with more choices, as `--config-dir` on the command line.
    """
    from hydra import initialize_config_dir

    if isinstance(overrides, str):
        raise UserError(f"{overrides!r} is one string; dlexp takes a list of words: [{overrides!r}]")
    if wrong := [word for word in overrides if not isinstance(word, str)]:
        raise UserError(f"{wrong[0]!r} is no text; dlexp takes words such as 'model.depth=20'")
    refuse_options(overrides)
    if options := [word for word in overrides if word.startswith("-")]:
        raise UserError(f"{options[0]}: an option of dlexp in a terminal; here there are words, key=value")
    # Somebody else in this process may be using Hydra: lend its state out and put it back.
    state = GlobalHydra.instance()
    theirs, state.hydra = state.hydra, None
    try:
        with initialize_config_dir(str(CONFIGS.resolve()), job_name="dlexp", **VERSION_BASE):
            words = expanded(overrides)
            if config_dir is not None:
                words.append(f"hydra.searchpath=['file://{Path(config_dir).resolve()}']")
            config = _composed(words, GlobalHydra.instance().config_loader())
            named = config.hydra.run.dir
            return apart(config, None if named == "." else Path(named))
    except (CompactHydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(*explain(error)) from error
    finally:
        state.hydra = theirs


class _Kinds:
    """What Hydra has composed; words that differ in plain values only are composed once.

    Hydra reads and merges some thirty files for each config and takes longer than a small run. Plain values
    are set by Hydra's own function.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], DictConfig] = {}

    def compose(
        self, words: list[str], loader: Any, load: Callable[[list[str]], DictConfig], state: object = None
    ) -> DictConfig:
        """The config of words.

        Args:
            load: what composes words that are of no known kind.
            state: of all else that a config depends on.
        """
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
        if any(override.is_hydra_override() for override in parsed):
            return load(words)
        plain = _plain(parsed, loader)
        kind = [str(override.input_line) for override in parsed if override not in plain]
        key = state, *kind
        if key not in self._known:
            if len(self._known) >= MOST_KINDS:
                self._known.clear()
            self._known[key] = load(kind)
        config = copy.deepcopy(self._known[key])
        config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config(plain, config)
        config.hydra.overrides.task = [str(override.input_line) for override in parsed]
        if VERSION_BASE:  # from Hydra 1.4 on it follows from `overrides`
            config.hydra.job.override_dirname = _dirname(parsed, config.hydra.job.config.override_dirname)
        return config

    def __len__(self) -> int:
        return len(self._known)


_KINDS = _Kinds()


def _composed(words: list[str], loader: Any) -> DictConfig:
    """What `hydra.compose` makes of words."""
    from hydra.types import RunMode

    load = partial(loader.load_configuration, "config", run_mode=RunMode.RUN, from_shell=False)
    config = _KINDS.compose(words, loader, load, _state_of_files())
    config.hydra.runtime.cwd = str(Path.cwd())
    return config


def _state_of_files() -> int:
    """Another number once a YAML file was changed."""
    found = [(file.path, file.stat()) for file in _files(str(CONFIGS))]
    return hash(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in found))


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry


def master(overrides: Sequence[str]) -> tuple[Any, DictConfig]:
    """Hydra's loader, and the whole config that `overrides` make, from which a `Composer` makes jobs.

    Raises:
        UserError: a word cannot be used.
    """
    from hydra import initialize_config_dir
    from hydra.types import RunMode

    state = GlobalHydra.instance()
    theirs, state.hydra = state.hydra, None
    try:
        with ONE_AT_A_TIME, initialize_config_dir(str(CONFIGS.resolve()), job_name="dlexp", **VERSION_BASE):
            loader = GlobalHydra.instance().config_loader()
            return loader, loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
    except (CompactHydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(*explain(error)) from error
    finally:
        state.hydra = theirs


def apart(config: DictConfig, folder: Path | None = None) -> Request:
    """A request from a whole config, Hydra's own part in it."""
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return request(task, config.hydra, folder)


def request(task: DictConfig, own: DictConfig, folder: Path | None = None) -> Request:
    """A request from what Hydra composed: the task's config and Hydra's own part."""
    typed: Any = OmegaConf.to_container(own.overrides.task, resolve=False)
    try:
        OmegaConf.resolve(task)
    except OmegaConfBaseException as error:  # ${...} that leads nowhere
        words = " ".join(word for word in typed if "${" in word) or "config"
        raise UserError(f"{words}: {str(error).splitlines()[0]}") from error
    chosen = own.runtime.choices.items()
    choices = {str(key): str(word) for key, word in chosen if not str(key).startswith("hydra/")}
    if task.name == "auto":
        task.name = f"{choices.get('model')}_{choices.get('data')}"
    return Request(task, choices, typed, own, folder)


class Composer:
    """Composes the configs of a sweep's jobs, in place of `load_sweep_config` of Hydra's loader."""

    def __init__(self, loader: Any, own: DictConfig | None = None) -> None:
        """With `own` jobs are composed from that config of the sweep, not from the one that Hydra hands in.

        Hydra wants the part of a config that rules the sweep to be the same in each job.
        """
        self._loader, self._own, self._kinds = loader, own, _Kinds()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kinds": _Kinds()}  # launchers send the loader to other processes

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        words, master_config = expanded(sweep_overrides), self._own or master_config
        load = partial(type(self._loader).load_sweep_config, self._loader, master_config)
        config = self._kinds.compose(words, self._loader, load)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        if words != sweep_overrides:  # a job is called by what was swept
            arms = [word for word in sweep_overrides if key_of(word) == ARM]
            config.hydra.overrides.task = [*config.hydra.overrides.task, *arms]
        return config


def _plain(parsed: Sequence[Override], loader: Any) -> list[Override]:
    """Those that only set a value, whatever stands before and behind them."""
    plain = [one for one in parsed if _is_plain(one, loader)]
    values = [one for one in parsed if not loader.repository.group_exists(one.key_or_group)]
    others = [f"{one.key_or_group}." for one in values if one not in plain]

    def alone(key: str) -> bool:
        return not any(key.startswith(other) or other.startswith(key) for other in others)

    return [one for one in plain if alone(f"{one.key_or_group}.")]


def _is_plain(override: Override, loader: Any) -> bool:
    """Does it only set a number or a text that there is already?"""
    return (
        override.type == OverrideType.CHANGE
        and override.package is None
        and not override.is_hydra_override()
        and not override.is_sweep_override()
        and not isinstance(override.value(), (dict, list))
        and not loader.repository.group_exists(override.key_or_group)
    )


MOST_KINDS = 64  # configs that are kept


def _dirname(parsed: Sequence[Override], options: DictConfig) -> str:
    """What Hydra 1.3 calls a job by: its words without some, in alphabetical order."""
    words = [
        str(override.input_line)
        for override in parsed
        if not override.is_hydra_override() and override.key_or_group not in options.exclude_keys
    ]
    return str(options.item_sep).join(sorted(words)).replace("=", options.kv_sep)


def explain(error: Exception) -> list[str]:
    """One line a finding for an error of Hydra's: the word, what is wrong with it, what is allowed."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        word = str(error.override)
        return [f"{word or repr(word)}: not understood; {_instead(word)}"]
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if extra := EXTRAS.get(f"{group}={choice}"):
            return [f"{group}={choice}: not installed; pip install 'dlexp[{extra}]'"]
        return [f"{group}={choice}: no such choice{_nearest(choice, error.options)}"]
    if several := re.match(r"Ambiguous value for argument '(.*?)'", text):
        return [f"{several[1]}: several values; dlexp -m in a terminal sweeps over them, or quote a text"]
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        key, parent = str(cause.full_key), cause.parent_node
        known = (
            [str(name) for name in parent if str(name)[0] != "_"] if isinstance(parent, DictConfig) else []
        )
        if "." not in key:
            known = [name for name in {*known, *group_names()} if name != "hydra"]
        typed = re.search(r"To append to your config use \+(\S.*)$", text)
        hint = (
            _of_your_own(key, parent, typed and typed[1])
            or _elsewhere(key, known)
            or _inside(key, parent)
            or _nearest(key, known)
        )
        return [f"{typed[1] if typed else key}: no such key{hint}"]
    if text.startswith("Config group override must be"):
        every = ", ".join(group_names())
        return [f"write key=value; a group ({every}) takes the name of a YAML file, not null"]
    return [" ".join(str(cause or error).split()) or text]


# Hydra's own choices that come with packages of their own -> which of our extras brings them.
EXTRAS = {
    "hydra/sweeper=optuna": "sweep",
    "hydra/launcher=joblib": "sweep",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=submitit_local": "slurm",
}

# What is typed without key=value.
COMMANDS = {
    "list": "dlexp list",
    "report": "dlexp report PATH",
    "help": "dlexp --help",
    "version": "dlexp --version",
}


def _instead(word: str) -> str:
    """What to write in place of a word that is no key=value."""
    if "=" in word:
        key, _, value = word.partition("=")
        shown = "two words, say" if "'" in value or '"' in value else value
        return (
            "write key=value, for example model.depth=20; a value with special characters needs"
            f" two pairs of quotes, \"{key}='{shown}'\""
        )
    if close := difflib.get_close_matches(word.lower(), COMMANDS, n=1):
        return f"did you mean `{COMMANDS[close[0]]}`?"
    if word in group_names():
        return f"write {word}=..., without spaces; `dlexp list {word}` says what there is"
    if "." in word:
        return f"write {word}=..., without spaces"
    if groups := [group for group in group_names() if (CONFIGS / group / f"{word}.yaml").is_file()]:
        return f"did you mean {' or '.join(f'{group}={word}' for group in groups)}?"
    return "write key=value, without spaces, for example model.depth=20"


def refuse_options(words: Sequence[str]) -> None:
    """Refuse keys that are typed as options, --depth 3, before Hydra answers with its own options."""
    if not any(word.startswith("--") for word in words):
        return
    top: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "config.yaml"), resolve=False)
    files = [path for group in group_names() for path in (CONFIGS / group).glob("*.yaml")]
    keys = {key: f"{path.parent.name}.{key}" for path in files for key in map(str, OmegaConf.load(path))}
    keys |= {str(key): str(key) for key in (*top, *group_names()) if key not in ("defaults", "hydra")}
    for word, following in zip(words, [*words[1:], "..."], strict=True):
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--") and (name in keys or "." in name):
            value = value if equals else following
            raise UserError(f"{word}: is no option; write {keys.get(name, name)}={value}")


def notes(group: str) -> dict[str, dict[str, Any]]:
    """What each choice of a group says of itself that others have to fit: word -> note -> its value."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        found[path.stem] = {name: content[name] for name in NOTES if name in content}
    return found


def group_names() -> list[str]:
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "hydra")


def _of_your_own(key: str, config: object, typed: str | None) -> str:
    """How a value is given to a class that dlexp does not ship: its YAML file does not list it."""
    group = key.partition(".")[0]
    if not typed or key.endswith("._target_") or group not in group_names():
        return ""
    if not isinstance(config, DictConfig):
        return ""
    own: Any = OmegaConf.to_container(config).get("_target_")  # type: ignore[union-attr]
    files = (OmegaConf.to_container(OmegaConf.load(path)) for path in (CONFIGS / group).glob("*.yaml"))
    shipped = {content.get("_target_") for content in files if isinstance(content, dict)} - {"???"}
    return f"; type +{typed}" if own is not None and own not in shipped else ""


def _elsewhere(key: str, known: Sequence[str]) -> str:
    """Other choices of the group that take this key, e.g. dropout=standard for dropout.p."""
    group, _, name = key.partition(".")
    if name == "_target_":
        return f" of this choice; for one of your own type +{key}=module.Class"
    files = sorted((CONFIGS / group).glob("*.yaml")) if group in group_names() else []
    takers = [f"{group}={path.stem}" for path in files if name in OmegaConf.load(path)]
    instead = f"; here there is {', '.join(f'{group}.{own}' for own in known)}" if 0 < len(known) < 4 else ""
    return f" of this choice; it belongs to {', '.join(takers)}{instead}" if takers else ""


def _inside(key: str, config: object) -> str:
    """Where a key of that name stands, if it was typed without its group: depth is model.depth."""
    if "." in key or not isinstance(config, DictConfig):
        return ""
    files = {group: (CONFIGS / group).glob("*.yaml") for group in group_names()}
    found = [group for group in files if group in config and key in config[group]]
    found = found or [g for g, paths in files.items() if any(key in OmegaConf.load(path) for path in paths)]
    return f"; did you mean {' or '.join(f'{group}.{key}' for group in found)}?" if found else ""


def _nearest(typed: str, known: Iterable[str]) -> str:
    """A hint at what was meant, and all that is allowed; `typed` may be a dotted key."""
    prefix, dot, word = typed.rpartition(".")
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    hint = f"; did you mean {prefix}{dot}{lower[close[0]]}?" if close else ""
    allowed = ", ".join(f"{prefix}{dot}{name}" for name in names)
    return f"{hint}; allowed: {allowed}" if allowed else f"{hint}; this choice takes no values"


# What may differ between a run and its continuation: it changes no weight and no record.
FREE = (
    *("outputs", "name", "device", "threads", "anomaly", "resume", "objective"),
    *("train.checkpoint_every", "train.keep_weights", "train.best_error"),
    *("record.tensorboard", "record.images", "record.histograms", "record.graph"),
    *("data.root", "data.download"),
)

# What dlexp itself reads of a choice, to see whether it fits others: nothing to be set.
NOTES = ("takes", "tasks", "gives")


def flatten(config: DictConfig | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for every leaf, Hydra's own `_target_` and the like left out."""
    leaves: dict[str, Any] = {}
    for key in config:
        name = prefix + str(key)
        if str(key).startswith("_") or key in NOTES:
            continue
        value = config[str(key)]
        if isinstance(value, (dict, DictConfig)):
            leaves |= flatten(value, f"{name}.")
        else:
            leaves[name] = list(value) if isinstance(value, ListConfig) else value
    return leaves

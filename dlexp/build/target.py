"""What a `_target_` names: a class or a function of any module, or one line of why there is none."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dlexp.errors import UserError

FEW = 8  # names that a line lists


def locate(asked: str, path: object) -> Any:
    """The class or function of that dotted path.

    Args:
        asked: what was typed, e.g. "model._target_=my_module.MyNet"; the line begins with it.

    Raises:
        UserError: there is no such module, it cannot be imported, or it has no such thing.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(parts):
        raise UserError(f"{asked}: allowed: module.Class, for example my_module.MyNet")
    found = _module(asked, parts[0])
    for i, name in enumerate(parts[1:], start=1):
        here = ".".join(parts[:i])
        if not hasattr(found, name) and isinstance(found, ModuleType) and hasattr(found, "__path__"):
            _module(asked, f"{here}.{name}", found)
        if not hasattr(found, name):
            raise UserError(f"{asked}: {here} has no {name}{_instead(name, here, found)}")
        found = getattr(found, name)
    if not callable(found):
        kind = "a module" if isinstance(found, ModuleType) else f"a {type(found).__name__}"
        raise UserError(f"{asked}: is {kind}, no class or function{_instead('', '.'.join(parts), found)}")
    return found


def _module(asked: str, path: str, parent: ModuleType | None = None) -> Any:
    """The module of that path, if there is one; below a `parent` there need not be."""
    try:
        return importlib.import_module(path)
    except Exception as error:  # a module may raise anything while it is read
        if not isinstance(error, ModuleNotFoundError) or error.name != path:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{asked}: {path} cannot be imported: {text}") from error
        if parent:
            return None
        here = [file.stem for file in Path.cwd().glob("*.py")]
        here += {name.partition(".")[0] for name in sys.modules}
        close = difflib.get_close_matches(path, here, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; looked for {path}.py in {Path.cwd()}, too"
        raise UserError(f"{asked}: there is no module {path}{hint}") from error


def _instead(name: str, path: str, found: Any) -> str:
    """The names there are that are like the one that is not, or else a few."""
    public = [word for word in dir(found) if not word.startswith("_")]
    lower = {word.lower(): word for word in public}
    close = [lower[word] for word in difflib.get_close_matches(name.lower(), lower, n=3)]
    if close:
        return f"; did you mean {' or '.join(f'{path}.{word}' for word in close)}?"
    classes = [w for w in public if inspect.isclass(getattr(found, w, None))]
    own = [w for w in classes if getattr(found, w).__module__ == path]
    listed = ", ".join((own or classes)[:FEW])
    more = ", ..." if len(own or classes) > FEW else ""
    return f"; allowed: {listed}{more}" if listed else ""

"""Words of a command line, key=value, apart from what Hydra makes of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from dlexp.errors import UserError

SHORT = 7  # characters: a longer number is rounded where it is shown
ARM = "arm"  # a word that stands for several: arms that make no grid
LONGEST_NAME = 150  # of a job's folder; file systems end at 255
Value = str | int | float | bool | None


def key_of(word: str) -> str:
    """What a word is about: `model.depth` of `model.depth=2`, `+model.depth=2` and `~model.depth`."""
    return word.lstrip("+~").partition("=")[0]


def split_words(words: Sequence[str]) -> dict[str, str]:
    """Key -> value of words as they are typed: `model.depth=2`, `+model.hidden=30`, `~clip`."""
    return {key_of(word): unquoted(word.partition("=")[2]) for word in words}


def quoted(text: str) -> str:
    """As a value on a command line for Hydra, whatever characters it has."""
    # Hydra reads a backslash as one unless a quote follows.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (m[2] and "\\'"), text) + "'"


def unquoted(value: str) -> str:
    """A value of a command line without the quotes that are for Hydra."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    return re.sub(rf"(\\+)({value[0]}|$)", lambda m: m[1][: len(m[1]) // 2] + m[2], value[1:-1])


def expanded(words: Sequence[str]) -> list[str]:
    """With the words that `arm` stands for: arm='optimizer=sgd optimizer.lr=1' are two, swept as one."""
    if not any(key_of(word) == ARM for word in words):
        return list(words)
    found: list[str] = []
    for word in words:
        found += unquoted(word.partition("=")[2]).split() if key_of(word) == ARM else [word]
    return list(dict.fromkeys(found))  # a job's own list has both


def refuse_what_arms_say(typed: Sequence[str], arms: Sequence[str]) -> None:
    """A key that some arms set themselves cannot be set for all of them.

    Raises:
        UserError: it is typed.
    """
    said = {key_of(word) for arm in arms for word in unquoted(arm).split()}
    for word in typed:
        if (key := key_of(word)) in said and key != ARM:
            raise UserError(f"{word}: the arms set {key} themselves; arm='...' stands in their place")


def folder_name(words: Sequence[str]) -> str:
    """Words as the name of a folder, e.g. activation=relu,seed=0."""
    parts = (word.lstrip("+~").partition("=") for word in words)
    name = ",".join(key + equals + unquoted(value) for key, equals, value in parts)
    safe = re.sub(r"[^\w=.,+@-]", "_", name)
    if safe == name and len(name) <= LONGEST_NAME:
        return name
    return f"{safe[:LONGEST_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def value(text: str | None) -> Value:
    """What a typed value means: a number, true or false, nothing, or a text."""
    if text is None or text == "null":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def short(text: str | None, most: int = 18) -> str:
    """A value in few characters."""
    if text is None:
        return "–"
    if len(text) > SHORT and isinstance(number := value(text), float):
        return f"{number:.3g}"
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""The words that can be typed, as the YAML files themselves tell of them: `dlexp list`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlexp.compose import NOTES
from dlexp.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


SWEPT = "hydra.sweeper.params."  # the key of what a choice sweeps, in its file
LONGEST = 60  # characters of what is swept


class Choice(NamedTuple):
    """One YAML file of a group."""

    word: str
    says: str  # its opening comment, a line
    values: dict[str, str]  # what can be set in it, as it is typed: {"depth": "3", "width": "64"}
    default: bool
    whole: bool = False  # it is a config of its own, with words for several groups

    def shown(self, leave_out: Collection[str] = ()) -> str:
        """The values in a line, e.g. "depth=3, width=64"."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items() if key not in leave_out)


def groups(configs: Path) -> dict[str, str]:
    """Group -> what the defaults list of config.yaml says of it, in the order of that list."""
    found = {}
    for line in (configs / "config.yaml").read_text(encoding="utf-8").splitlines():
        entry, _, comment = line.partition("#")
        group, colon, _ = entry.strip().removeprefix("- ").partition(":")
        if colon and line.startswith("  - ") and (configs / group).is_dir():
            found[group] = comment.partition(":")[0].partition(";")[0].strip()
    return found


def choices(configs: Path, group: str) -> list[Choice]:
    """The choices of a group, the default first, the others by the alphabet.

    Raises:
        UserError: there is no such group.
    """
    from omegaconf import OmegaConf

    known = groups(configs)
    if group not in known:
        raise UserError(f"list {group}: no such group{_meant(configs, group)}; allowed: {', '.join(known)}")
    content: Any = OmegaConf.to_container(OmegaConf.load(configs / "config.yaml"), resolve=False)
    default = next(entry[group] for entry in content["defaults"] if entry != "_self_" and group in entry)
    found = []
    for path in sorted((configs / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
        values = _values(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
        whole = "# @package _global_" in lines
        values = _as_words(values) if whole else values
        found.append(Choice(path.stem, said[0], values, path.stem == default, whole))
    return sorted(found, key=lambda choice: not choice.default)


def _meant(configs: Path, word: str) -> str:
    """The groups that a word was typed for: a choice, a choice with its group, or a slip."""
    known, group = groups(configs), word.partition("=")[0]
    close = [group] if group in known else [g for g in known if (configs / g / f"{word}.yaml").is_file()]
    close = close or difflib.get_close_matches(group, known, n=1)
    return f"; did you mean {' or '.join(f'`dlexp list {name}`' for name in close)}?" if close else ""


def experiments(folder: Path) -> dict[str, str]:
    """Experiment -> the question that its page opens with; no page is run for it.

    Raises:
        UserError: there are no pages, as in an installed package.
    """
    import ast

    pages = [path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"]
    if not pages:
        raise UserError(f"list experiments: there are none in {folder}; they come with the repository")
    parsed = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in pages}
    return {slug: (ast.get_docstring(page) or "").partition("\n")[0] for slug, page in parsed.items()}


def common(found: list[Choice]) -> list[str]:
    """What more than half of the choices of a large group can be told: said once, not in every row.

    What is swept, or set in another group, is what tells such choices apart.
    """
    if any(choice.whole for choice in found):
        return []
    keys = [key for choice in found for key in choice.values]
    return [key for key in dict.fromkeys(keys) if len(found) > 9 and keys.count(key) > len(found) / 2]


def _values(content: object, prefix: str = "") -> dict[str, str]:
    """The keys of a choice with their values, as they are typed."""
    found: dict[str, str] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if str(key).startswith("_") or key in NOTES:
            continue
        if isinstance(value, dict):
            found |= _values(value, f"{prefix}{key}.") if "_target_" not in value else {}
        else:
            text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            found[f"{prefix}{key}"] = text.replace(", ", ",")
    return found


def _as_words(values: dict[str, str]) -> dict[str, str]:
    """What a choice that is a whole config chooses, sweeps and sets, as one would type it."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if key == "defaults":
            found |= dict(re.findall(r"'override /(?!hydra)([\w/]+)': '(\w+)'", value))
        else:
            short = value if len(value) <= LONGEST else f"{value[:LONGEST]}..."
            found[key.removeprefix(SWEPT)] = short if key.startswith(SWEPT) else value
    return found


def as_markdown(configs: Path, group: str) -> str:
    """A table for the README: a row for each choice."""
    rows = [f"| `{group}=` | what it is | values |", "|---|---|---|"]
    found = choices(configs, group)
    shared = common(found)
    for choice in found:
        word = f"**`{choice.word}`**" if choice.default else f"`{choice.word}`"
        says, values = (text.replace("|", "\\|") for text in (choice.says, choice.shown(shared)))
        rows.append(f"| {word} | {says} | {f'`{values}`' if values else ''} |")
    if shared:
        rows += ["", f"Most of them also take {', '.join(f'`{group}.{key}`' for key in shared)}."]
    return "\n".join(rows) + "\n"


def show_experiments(folder: Path) -> None:
    """Print them with their questions."""
    console, table = _console_and_table()
    table.add_column("experiment", no_wrap=True)
    table.add_column("question")
    for slug, question in experiments(folder).items():
        table.add_row(slug, question)
    console.print(table)
    console.print("\npython experiments/EXPERIMENT.py runs one and judges its claims.")


def _console_and_table() -> tuple[Console, Table]:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    return console, Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def show(configs: Path, group: str | None) -> None:
    """Print the groups, or the choices of one."""
    from rich.text import Text

    console, table = _console_and_table()
    if group is None:
        table.add_column("group", no_wrap=True)
        table.add_column("what it is about")
        table.add_column("choices")
        for name, says in groups(configs).items():
            words = [c.word for c in choices(configs, name)]
            table.add_row(name, says, " ".join(words))
        console.print(table)
        console.print("\ndlexp list GROUP says what each choice is; the first one is the default.")
        return
    table.add_column(f"{group}=", no_wrap=True)
    table.add_column("what it is")
    table.add_column("values")
    found = choices(configs, group)
    shared = common(found)
    for choice in found:
        word = choice.word + ("  (default)" if choice.default else "")
        table.add_row(word, Text(choice.says), Text(choice.shown(shared)))
    console.print(table)
    if shared:
        console.print(f"\nMost of them also take {', '.join(f'{group}.{key}' for key in shared)}.")

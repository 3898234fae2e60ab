"""The words that can be typed, as the YAML files themselves tell of them: `dlexp list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dlexp.compose import NOTES
from dlexp.errors import UserError

class Choice(NamedTuple):
    """One YAML file of a group."""

    word: str
    says: str  # its opening comment, a line
    values: str  # what can be set in it, e.g. "depth=3, width=64"
    default: bool


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
        raise UserError(f"list {group}: no such group; allowed: {', '.join(known)}")
    content: Any = OmegaConf.to_container(OmegaConf.load(configs / "config.yaml"), resolve=False)
    default = next(entry[group] for entry in content["defaults"] if entry != "_self_" and group in entry)
    found = []
    for path in sorted((configs / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
        values = _values(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
        found.append(Choice(path.stem, said[0], values, path.stem == default))
    return sorted(found, key=lambda choice: not choice.default)


def _values(content: object, prefix: str = "") -> str:
    """The keys of a choice with their values, as they are typed."""
    if not isinstance(content, dict):
        return ""
    shown = []
    for key, value in content.items():
        if str(key).startswith("_") or key in NOTES:
            continue
        if isinstance(value, dict):
            if "_target_" not in value:
                shown.append(_values(value, f"{prefix}{key}."))
            continue
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        shown.append(f"{prefix}{key}={text.replace(' ', '')}")
    return ", ".join(part for part in shown if part)


def as_markdown(configs: Path, group: str) -> str:
    """A table for the README: a row for each choice."""
    rows = [f"| `{group}=` | what it is | values |", "|---|---|---|"]
    for choice in choices(configs, group):
        word = f"**`{choice.word}`**" if choice.default else f"`{choice.word}`"
        values = choice.values.replace("|", "\\|")
        says = choice.says.replace("|", "\\|")
        rows.append(f"| {word} | {says} | {f'`{values}`' if values else ''} |")
    return "\n".join(rows) + "\n"


def show(configs: Path, group: str | None) -> None:
    """Print the groups, or the choices of one."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
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
    for choice in choices(configs, group):
        table.add_row(choice.word + ("  (default)" if choice.default else ""), choice.says, choice.values)
    console.print(table)

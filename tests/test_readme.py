"""The README's commands are tests: each one composes, and its tree names folders that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import readme_choices

from dlexp.build.check import check
from dlexp.compose import compose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```", flags=re.MULTILINE | re.DOTALL)
MADE_LATER = {"outputs"}  # git-ignored: a fresh checkout has none
LONG, ENOUGH = 20, 5  # a README of more lines shows so many commands or more


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of Markdown: (language, content)."""
    return [(match["language"], match["content"]) for match in BLOCK.finditer(text)]


def commands(text: str) -> list[list[str]]:
    """The words of every plain `dlexp ...` line in a bash block; those with a flag or `|` are left out."""
    found = []
    for language, content in blocks(text):
        for line in content.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["dlexp"] and not any(word[0] in "-|&>;" for word in words if word):
                found.append(words[1:])
    return found


def tree(text: str) -> list[str]:
    """The folders of the tree, as paths: lines of a block without a language that begin with `name/`."""
    paths: list[str] = []
    for language, content in blocks(text):
        open_folders: list[tuple[int, str]] = []
        for line in content.splitlines() if language in ("", "text") else ():
            match = re.match(r"^(?P<indent>[\s│├└─]*)(?P<name>[\w.\-/]+)/(\s|$)", line)
            if not match:
                continue
            indent = len(match["indent"])
            while open_folders and open_folders[-1][0] >= indent:
                open_folders.pop()
            path = "/".join([*(name for _, name in open_folders), match["name"]])
            open_folders.append((indent, match["name"]))
            paths.append(path)
    return paths


EXAMPLE = """
```bash
pip install -e . && dlexp
dlexp                       # all defaults
dlexp model.depth=20 'name=a b'  # two words
dlexp -m seed=0,1
dlexp --help
```
```python
dlexp.run([])
```
```
configs/    YAML
dlexp/      the library
  build/    models
  data/
├── tests/  all of it
```
"""


def test_commands_are_found() -> None:
    """The reader of this file sees commands as a shell does."""
    assert commands(EXAMPLE) == [[], ["model.depth=20", "name=a b"]]


def test_tree_is_found() -> None:
    """Nested folders become paths."""
    assert tree(EXAMPLE)[:4] == ["configs", "dlexp", "dlexp/build", "dlexp/data"]
    assert len(tree(EXAMPLE)) == 5


@pytest.mark.parametrize("words", commands(README), ids=" ".join)
def test_every_command_composes(words: list[str]) -> None:
    """What the README tells a person to type is understood, and its values are allowed."""
    check(compose(words))


def test_a_long_readme_shows_commands() -> None:
    """Commands are not lost to a change of the README's form."""
    if len(README.splitlines()) <= LONG:
        pytest.skip("the README is not written yet")
    assert len(commands(README)) >= ENOUGH


def test_tree_names_folders_that_exist() -> None:
    """Every folder in the README's tree is there, below its parent in the tree."""
    if len(README.splitlines()) <= LONG:
        pytest.skip("the README is not written yet")
    folders = tree(README)
    assert folders, "the README has a tree with one phrase per folder"
    gone = [path for path in folders if path not in MADE_LATER and not (ROOT / path).is_dir()]
    assert gone == []


def test_the_tables_of_choices_are_those_of_the_yaml_files() -> None:
    """After a change: python tests/readme_choices.py."""
    found = README.partition(readme_choices.BEGIN)[2].partition(readme_choices.END)[0]
    assert found == f"\n{readme_choices.tables()}"


def wanted() -> list[list[str]]:
    """The words of the table of ways to work, those that stand for themselves."""
    table = README.partition("| what you want |")[2].partition("\n\n")[0]
    spans = [span for row in table.splitlines()[2:] for span in re.findall(r"`([^`]*=[^`]*)`", row)]
    return [span.split() for span in spans if "outputs/..." not in span]


@pytest.mark.parametrize("words", wanted(), ids=" ".join)
def test_ways_to_work_can_be_typed(words: list[str]) -> None:
    """Each composes, alone or, where it is a value, with the choice that takes it, and passes the check."""
    takers = {
        "model.gate_bias": "lstm",
        "model.recurrent": "rnn",
        "model.truncate": "rnn",
        "model.frozen": "transfer",
    }
    taker = takers.get(words[0].partition("=")[0])
    check(compose([*words, f"model={taker}"] if taker else words))

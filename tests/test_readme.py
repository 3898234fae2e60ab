"""What the README shows is run: its commands, its ways to work, its Python; and its tree is there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readme_choices
import shell
import torch
from data.files import write_cifar10, write_mnist
from PIL import Image
from torchvision.models import resnet18

import dlexp
from dlexp.build.check import check
from dlexp.compose import CONFIGS, compose
from dlexp.lab.command import experiment_of, pages
from dlexp.lab.experiment import asked
from dlexp.sweep.command import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```", flags=re.MULTILINE | re.DOTALL)
MADE_LATER = {"outputs"}  # git-ignored: a fresh checkout has none
LONG, ENOUGH = 20, 5  # a README of more lines shows so many commands or more


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of Markdown: (language, content)."""
    return [(match["language"], match["content"]) for match in BLOCK.finditer(text)]


def commands(text: str) -> list[list[str]]:
    """The words of every `dlexp ...` line in a bash block; those with a pipe or the like are left out."""
    found = []
    for language, content in blocks(text):
        for line in content.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["dlexp"] and not any(word[0] in "|&>;" for word in words if word):
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
    assert commands(EXAMPLE) == [[], ["model.depth=20", "name=a b"], ["-m", "seed=0,1"], ["--help"]]


def test_tree_is_found() -> None:
    """Nested folders become paths."""
    assert tree(EXAMPLE)[:4] == ["configs", "dlexp", "dlexp/build", "dlexp/data"]
    assert len(tree(EXAMPLE)) == 5


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the README says are there, and torchvision's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    monkeypatch.setenv("DLEXP_DATA", str(tmp_path / "files"))
    return tmp_path


def put_files(words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the words name."""
    typed = " ".join(words)
    numbers = np.random.default_rng(0).random((40, 3))
    if "my.csv" in typed:
        rows = "".join(f"{a},{b},{c}\n" for a, b, c in numbers)
        Path("my.csv").write_text(f"a,b,column\n{rows}", encoding="utf-8")
    if "my.npz" in typed:
        answers = {
            "multi_label": np.where(numbers > 0.8, np.nan, numbers > 0.4),
            "classification": numbers[:, 0] > 0.5,
        }
        kind = typed.rpartition("data.kind=")[2].partition(" ")[0]
        np.savez("my.npz", inputs=numbers, targets=answers.get(kind, numbers[:, 0]))
    if "my_pictures" in typed:
        for name in ("cat", "dog"):
            Path("my_pictures", name).mkdir(parents=True)
            for n in range(20):
                Image.fromarray(np.full((9, 7), n * 10, np.uint8)).save(f"my_pictures/{name}/{n}.png")
    if "data=mnist" in typed:
        write_mnist(here / "files")
    if "data=cifar10" in typed:
        write_cifar10(here / "files", monkeypatch)
    if "my_module" in typed:
        (module,) = [content for _, content in blocks(README) if content.startswith("# my_module.py")]
        Path("my_module.py").write_text(module, encoding="utf-8")
    if "my_module.pretrained" in typed:
        torch.save(resnet18().state_dict(), "resnet18.pt")


# Cheap enough to run as they stand, and how they end; the others run for two steps.
WHOLE = {
    "": "finished",
    "debug=quick": "finished",
    "initializer=normal": "diverged",
    "stopping=early stopping.patience=10": "finished",
}


def perform(words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words run, and end as the README has it; of a sweep each value is allowed."""
    typed = " ".join(words)
    if words[:1] == ["-m"]:  # sweeps run in tests/test_multirun.py
        asked = parse([word for word in words[1:] if not word.startswith("resume")])
        for key, values in asked.values.items():
            for value in values:
                search = key.startswith("hydra") or "(" in value or key == "sweep"
                if search:
                    assert key != "sweep" or (CONFIGS / "sweep" / f"{value}.yaml").is_file()
                else:
                    check(compose([f"{key}={value}"]))
        return
    if words[:1] == ["report"]:
        return
    if words[:1] == ["list"]:
        assert len(answer(words).splitlines()) > 3
        return
    put_files(words, here, monkeypatch)
    short = [] if typed in WHOLE else ["train.max_steps=2", "record.tensorboard=false"]
    run = dlexp.run([*words, *short], quiet=True)
    assert run.summary["status"] == WHOLE.get(typed, "finished")


def answer(words: list[str]) -> str:
    """What `dlexp` prints, which ends well."""
    done = shell.run(*words, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("words", [w for w in commands(README) if "--" not in "".join(w)], ids=" ".join)
def test_every_command_runs(words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README tells a person to type."""
    perform(words, here, monkeypatch)


@pytest.mark.parametrize(
    "words", [w for w in commands(README) if "--" in "".join(w) and w[0] != "report"], ids=" ".join
)
def test_every_question_is_answered(words: list[str], here: Path) -> None:
    """--help, --cfg and --info print, and nothing runs."""
    assert len(answer(words).splitlines()) > 10 and list(here.iterdir()) == []


def test_the_commands_of_the_notebook_plan_jobs(here: Path) -> None:
    """They name experiments that there are, and words that these take; the experiments run elsewhere."""
    found = re.findall(r"^python (?:experiments/|-m experiments )(.*?)(?: *#.*)?$", README, re.M)
    assert len(found) == 4
    for line in found:
        words = [word for word in line.split() if "=" in word]
        every = line.startswith("--all")
        slugs = [] if every else [word.removesuffix(".py") for word in line.split() if "=" not in word]
        for page in pages(ROOT / "experiments", slugs, every=every):
            assert experiment_of(page).tasks(*asked(words)), line


def test_a_sweep_leaves_a_folder_for_each_job(here: Path) -> None:
    """The README's first, with two values of its first word and one of the others."""
    words = next(words[1:] for words in commands(README) if words[:1] == ["-m"])
    short = [",".join(word.split(",")[: 1 if n else 2]) for n, word in enumerate(words)]
    answer(["-m", *short, "train.max_steps=1", "record.tensorboard=false"])
    made = sorted(path.relative_to(here).parts for path in here.rglob("summary.json"))
    assert [(*parts[:2], *parts[3:]) for parts in made] == [
        ("outputs", "sweep", f"activation={word}", "summary.json") for word in ("relu", "tanh")
    ]


def ways() -> dict[str, list[list[str]]]:
    """The table of ways to work: what you want -> the words of each command that stands there."""
    table = README.partition("| what you want |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()[2:]]
    typed = {want: [span.split() for span in re.findall(r"`([^`]*=[^`]*)`", cell)] for want, cell in rows}
    return {want: found for want, found in typed.items() if found}


@pytest.mark.parametrize("want", ways())
def test_ways_to_work_run(want: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a row, one after the other."""
    for words in ways()[want]:
        perform(words, here, monkeypatch)


def sentences() -> list[list[str]]:
    """The commands that stand in the lines on data of your own."""
    part = README.partition("Your own data: ")[2].partition("\n\n")[0]
    kinds = " ".join(re.findall(r"`(data\.kind=\w+)`", part)).split()
    paths = [span.split() for span in re.findall(r"`(data=[^`]*)`", part)]
    return [*paths, *([*paths[1], kind] for kind in kinds)]


@pytest.mark.parametrize("words", sentences(), ids=" ".join)
def test_data_of_your_own_can_be_used(words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, arrays as each kind, a folder of pictures."""
    perform(words, here, monkeypatch)


def test_the_yaml_file_is_a_choice(here: Path) -> None:
    """An activation of one's own, in a folder of one's own, no Python needed."""
    (content,) = [content for language, content in blocks(README) if language == "yaml"]
    path = re.findall(r"my_configs/\S+\.yaml", content)[0]
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text(content, encoding="utf-8")
    word = f"{Path(path).parent.name}={Path(path).stem}"
    assert not Path(ROOT, "configs", Path(path).relative_to("my_configs")).exists()
    run = dlexp.run([word, "train.max_steps=2"], quiet=True, config_dir="my_configs")
    assert run.summary["status"] == "finished"


def test_the_notebook_runs(here: Path) -> None:
    """Each line of it, shorter and on the folder that it made."""
    (content,) = [text for language, text in blocks(README) if language == "python" and "dlexp.run" in text]
    content = content.replace('sigmoid"]', 'sigmoid", "train.max_steps=2"], quiet=True')
    lines = re.sub(r"\Wdlexp\.load\(.*?\)", "\nloaded = dlexp.load(run.folder)", content)
    names: dict[str, Any] = {}
    exec(lines, names)
    assert "quiet=True" in lines and names["loaded"].summary == names["run"].summary


def test_the_pictures_are_drawn(here: Path) -> None:
    """The lines about them, and each row of their table, on a run and a sweep of two."""
    for seed in (0, 1):
        words = [
            "train.max_steps=2",
            f"seed={seed}",
            "activation=sigmoid",
            f"hydra.run.dir={here}/all/{seed}",
        ]
        run = dlexp.run(words, quiet=True)
    (content,) = [text for language, text in blocks(README) if language == "python" and "dlexp.plots" in text]
    exec(re.sub(r'dlexp\.load\(".*?"\)', f"dlexp.load({str(run.folder)!r})", content), {})
    assert (here / "start.png").stat().st_size > 10_000
    calls = re.findall(r"^\| `(\w+\([^`]*\))` \|", README.partition("| `dlexp.plots.` |")[2], re.M)
    assert {call.partition("(")[0] for call in calls} == set(dlexp.plots.__all__) - {"samples"}
    for call in calls:
        names = {"run": run, "sweep": dlexp.load_sweep(here / "all"), "dlexp": dlexp}
        figure = eval(f"dlexp.plots.{call.replace('activation', 'seed')}", names)
        assert figure.axes


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

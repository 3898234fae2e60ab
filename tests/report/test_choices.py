"""`dlexp list`: what the YAML files say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlexp.compose import CONFIGS
from dlexp.errors import UserError
from dlexp.report.choices import as_markdown, choices, experiments, groups, show, show_experiments


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Two groups."""
    (tmp_path / "config.yaml").write_text(
        "defaults:\n  - _self_\n  - model: big   # the network: big small\n  - clip: none # tames; clip.x=1\n"
    )
    for name, text in {
        "model/small": "# A small one.\n# More.\n_target_: x\n_partial_: true\nwidth: 3 # u\nbias: null\n",
        "model/big": "# A big one | really.\n_target_: x\nsizes: [1, 2]\ndeep:\n  er: true\n",
        "clip/none": "# @package _global_\n# Nothing.\n{}\n",
    }.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_groups_come_in_the_order_of_the_defaults_list(configs: Path) -> None:
    """With what the list says of them."""
    assert groups(configs) == {"model": "the network", "clip": "tames"}


def test_a_choice_is_its_opening_comment_and_its_values(configs: Path) -> None:
    """The default comes first; what Hydra or dlexp reads by itself is left out."""
    big, small = choices(configs, "model")
    assert (big.word, big.default, big.shown()) == ("big", True, "sizes=[1,2], deep.er=true")
    assert (small.word, small.says, small.default) == ("small", "A small one.", False)
    assert small.shown() == "width=3, bias=null"
    (none,) = choices(configs, "clip")
    assert (none.word, none.says, none.values) == ("none", "Nothing.", {})


def test_markdown_is_a_table(configs: Path) -> None:
    """A row for each choice; a bar in a text does not end its cell."""
    lines = as_markdown(configs, "model").splitlines()
    assert lines[0] == "| `model=` | what it is | values |"
    assert lines[2].startswith("| **`big`** | A big one \\| really. |")
    assert len(lines) == 4


def test_what_most_choices_take_is_said_once(configs: Path) -> None:
    """In a large group: a key of nine in twelve is left out of the rows, one of three is not."""
    for n in range(10):
        (configs / "model" / f"m{n}.yaml").write_text(f"# Model {n}.\nseed: 0\n" + "rare: 1\n" * (n < 3))
    text = as_markdown(configs, "model")
    assert "seed=0" not in text and text.count("rare=1") == 3
    assert text.endswith("\n\nMost of them also take `model.seed`.\n")


def test_a_whole_config_is_told_as_one_would_type_it(configs: Path) -> None:
    """What it chooses, sweeps and sets; a long list is cut, and nothing is left out of the rows."""
    (configs / "clip" / "many.yaml").write_text(
        "# @package _global_\n# Many.\ndefaults:\n  - override /model: small\n"
        "  - override /hydra/sweeper: optuna\n"
        "hydra:\n  sweeper:\n    params:\n      model.width: 1,2\n"
        f"      seed: {','.join(map(str, range(50)))}\ntrain:\n  epochs: 3\n"
    )
    many = next(choice for choice in choices(configs, "clip") if choice.word == "many")
    cut = ",".join(map(str, range(50)))[:60]
    assert many.shown() == f"model=small, model.width=1,2, seed={cut}..., train.epochs=3"
    assert "Most of them" not in as_markdown(configs, "clip")


def test_an_unknown_group_is_refused(configs: Path) -> None:
    """With the groups there are."""
    with pytest.raises(
        UserError, match=r"^list modle: .*; did you mean `dlexp list model`\?; allowed: model, clip$"
    ):
        choices(configs, "modle")
    with pytest.raises(UserError, match=r"^list small: .*; did you mean `dlexp list model`\?; allowed: "):
        choices(configs, "small")
    with pytest.raises(UserError, match=r"^list qqqq: no such group; allowed: "):
        choices(configs, "qqqq")


def test_brackets_are_printed_as_they_are(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are no markup."""
    (configs / "model" / "cut.yaml").write_text("# Cut to [low, high] and [red].\nwhich: '[bold]'\n")
    show(configs, "model")
    shown = capsys.readouterr().out
    assert "Cut to [low, high] and [red]." in shown and "which=[bold]" in shown


def test_every_choice_says_something_short() -> None:
    """A line that fits a table, ending as a sentence does; no word is listed twice."""
    for group in groups(CONFIGS):
        for choice in choices(CONFIGS, group):
            assert 5 < len(choice.says) <= 120, choice
            assert choice.says.endswith((".", ")", "?")) and choice.says[0] != " ", choice


@pytest.mark.parametrize("group", [None, "optimizer"])
def test_show_prints_every_word(group: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """All groups, or all choices of one."""
    show(CONFIGS, group)
    words = capsys.readouterr().out.split()
    folder = CONFIGS / group if group else CONFIGS
    assert {path.stem for path in folder.iterdir()} - {"config", "hydra"} <= set(words)


def test_experiments_are_listed_by_their_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As their pages open; none of them is run for it."""
    (tmp_path / "second.py").write_text('"""Is it?\n\nTheory.\n"""\nraise SystemExit\n')
    (tmp_path / "first.py").write_text('"""Why?"""\n')
    (tmp_path / "__main__.py").write_text('"""No page."""\n')
    assert experiments(tmp_path) == {"first": "Why?", "second": "Is it?"}
    show_experiments(tmp_path)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["first", "Why?"],
        ["second", "Is", "it?"],
    ]


def test_where_there_are_no_pages_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^list experiments: there are none in .*; they come with the repository$"
    ):
        experiments(tmp_path / "experiments")

"""A class that is named by its path is found, or the one line says why not and what there is."""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dlexp.build.target import locate
from dlexp.errors import UserError

MODULE = """
import torch

DEPTH = 3

class Net(torch.nn.Linear):
    class Inner: pass

class Other: pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with my_nets.py, with modules that cannot be imported, and with a package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nets.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "my_typo.py").write_text("class Net(:\n", encoding="utf-8")
    (tmp_path / "my_import.py").write_text("import no_such_library\n", encoding="utf-8")
    (tmp_path / "my_crash.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "nets.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "my_package" / "crash.py").write_text("import no_such_library\n", encoding="utf-8")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_what_there_is_is_found(here: Path) -> None:
    """Of a library, of a file at hand, inside a class, in a part of a package that nobody has imported."""
    assert locate("x", "torch.nn.Linear") is torch.nn.Linear
    assert locate("x", "torch.nn.functional.relu") is torch.nn.functional.relu
    assert locate("x", "collections.OrderedDict.fromkeys")("a") == collections.OrderedDict(a=None)
    assert locate("x", "my_nets.Net").__bases__ == (torch.nn.Linear,)
    assert locate("x", "my_nets.Net.Inner").__name__ == "Inner"
    assert locate("x", "my_package.nets.Net").__module__ == "my_package.nets"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Net", "allowed: module.Class, for example my_module.MyNet"),
        ("", "allowed: module.Class, for example my_module.MyNet"),
        ("my_nets.", "allowed: module.Class, for example my_module.MyNet"),
        (3, "allowed: module.Class, for example my_module.MyNet"),
        (None, "allowed: module.Class, for example my_module.MyNet"),
        ("my_netz.Net", "there is no module my_netz; did you mean my_nets?"),
        ("qqxxqq.Net", "there is no module qqxxqq; looked for qqxxqq.py in {}, too"),
        ("my_nets.Ner", "my_nets has no Ner; did you mean my_nets.Net?"),
        ("my_nets.net", "my_nets has no net; did you mean my_nets.Net?"),
        ("my_nets.Qqqqqq", "my_nets has no Qqqqqq; allowed: Net, Other"),
        ("my_nets.Net.Iner", "my_nets.Net has no Iner; did you mean my_nets.Net.Inner?"),
        ("my_nets.DEPTH", "is a int, no class or function"),
        ("my_package.nets", "is a module, no class or function; allowed: Net, Other"),
        ("my_package.netz.Net", "my_package has no netz"),
        ("my_package.crash.Net", "my_package.crash cannot be imported: ModuleNotFoundError: No module named"),
        ("my_typo.Net", "my_typo cannot be imported: SyntaxError: "),
        ("my_import.Net", "my_import cannot be imported: ModuleNotFoundError: No module named 'no_such_li"),
        ("my_crash.Net", "my_crash cannot be imported: ZeroDivisionError: division by zero"),
        ("torch.nn.relu", "torch.nn has no relu; did you mean torch.nn.ReLU or "),
    ],
)
def test_what_there_is_not(path: object, expected: str, here: Path) -> None:
    """One line that begins with what was asked for."""
    with pytest.raises(UserError) as caught:
        locate(f"model._target_={path}", path)
    (line,) = caught.value.lines
    assert line.startswith(f"model._target_={path}: " + expected.format(here)) and "\n" not in line


def test_a_line_does_not_list_everything() -> None:
    """Eight names of a library that has more."""
    with pytest.raises(UserError) as caught:
        locate("x", "torch.nn.qqqqqqqqq")
    assert str(caught.value).count(", ") == 8 and str(caught.value).endswith(", ...")

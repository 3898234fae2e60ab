"""The project's own settings hold what they promise."""

from __future__ import annotations

import re
import subprocess
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

import dlexp

ROOT = Path(__file__).parents[1]


def test_warnings_are_errors(pytestconfig: pytest.Config) -> None:
    """A warning fails the test that causes it."""
    assert pytestconfig.getini("filterwarnings")[0] == "error"
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


def test_markers_and_config_are_strict() -> None:
    """A mistyped marker or setting is an error, and a test that is expected to fail must fail."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    options = text.split("[tool.pytest.ini_options]")[1].split("\n[")[0]
    (addopts,) = re.findall(r'^addopts = "(.*)"$', options, flags=re.MULTILINE)
    assert {"--strict-markers", "--strict-config"} <= set(addopts.split())
    assert re.search(r"^xfail_strict = true$", options, flags=re.MULTILINE)


def test_xfail_is_strict_here(pytestconfig: pytest.Config) -> None:
    """pytest has taken the setting over."""
    assert pytestconfig.getini("xfail_strict") is True


def test_installed_version_is_that_of_the_package() -> None:
    """The version lives in one place, dlexp/__init__.py."""
    assert version("dlexp") == dlexp.__version__


def test_changelog_has_this_version() -> None:
    """CHANGELOG.md has a heading for the current version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*{re.escape(dlexp.__version__)}\b", text, flags=re.MULTILINE)


def test_there_is_a_licence() -> None:
    """LICENSE is the one that pyproject.toml names."""
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_run_folders_are_ignored_by_git() -> None:
    """outputs/ never enters a commit."""
    assert (ROOT / "outputs" / ".gitignore").read_text().split() == ["*", "!.gitignore"]


def test_no_source_is_ignored_by_git() -> None:
    """Every module is tracked: an ignored one is missing from clones and from the wheel."""
    found = [
        str(p.relative_to(ROOT)) for d in ("dlexp", "configs", "tests") for p in (ROOT / d).rglob("*.[py]*")
    ]
    sources = [p for p in found if p.endswith((".py", ".yaml"))]
    command = ["git", "check-ignore", "--no-index", *sources]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == []

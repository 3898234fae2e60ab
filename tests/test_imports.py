"""One direction, no back and forth: who may import whom (DESIGN.md, "The way data flows")."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "dlexp").rglob("*.py"))
PARTS = {path: path.relative_to(ROOT).with_suffix("").parts for path in FILES}
MODULES = {".".join(parts).removesuffix(".__init__"): path for path, parts in PARTS.items()}
HEAVY = (
    *("torch", "torchvision", "pandas", "numpy", "hydra", "sklearn", "matplotlib", "tensorboard", "rich"),
    "jinja2",
)
BUILDS = ("dlexp.build", "dlexp.train", "dlexp.record", "dlexp.data", "dlexp.runner", "torch")


def imports(module: str) -> set[str]:
    """The dotted names that a module imports anywhere, also inside functions and for type checks."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full"
            base = str(node.module)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def below(names: set[str], *packages: str) -> set[str]:
    """Those of the names that are one of the packages or inside one."""
    return {name for name in names if any(name == p or name.startswith(f"{p}.") for p in packages)}


def inside(package: str) -> list[str]:
    found = [module for module in MODULES if below({module}, package)]
    assert found
    return found


def test_the_parser_sees_imports() -> None:
    """Otherwise all of these tests would pass by seeing nothing."""
    assert "dlexp.build.initialize.initialize" in imports("dlexp.build.assemble")
    assert "dlexp.runner" in imports("dlexp")  # inside a function
    assert "pandas" in imports("dlexp.report.load")  # for type checks alone


@pytest.mark.parametrize("package", ["build", "train", "record", "data"])
def test_the_stages_do_not_import_each_other(package: str) -> None:
    """build, train and record meet in assemble.py, the one door, and in runner.py.

    What a data set is, is known to all of build; how it is loaded, to no one.
    """
    stages = {"dlexp.build", "dlexp.train", "dlexp.record", "dlexp.data"} - {f"dlexp.{package}"}
    for module in inside(f"dlexp.{package}"):
        allowed = {"dlexp.data.dataset"} if package == "build" else set()
        if module == "dlexp.build.assemble":
            allowed |= {name for name in imports(module) if name.startswith("dlexp.train.")}
        found = below(imports(module), *stages)
        assert {name for name in found if not below({name}, *allowed)} == set(), module


def test_only_assemble_and_the_check_see_the_config() -> None:
    """Everything else that builds, trains or records takes plain arguments."""
    for package in ("build", "train", "record", "data"):
        for module in inside(f"dlexp.{package}"):
            if module not in ("dlexp.build.assemble", "dlexp.build.check"):
                seen = below(imports(module), "omegaconf", "hydra", "dlexp.compose")
                assert seen == set(), module


def test_reports_never_build_a_model() -> None:
    """They read files, so they work on old or copied outputs, without PyTorch."""
    for module in (*inside("dlexp.report"), *inside("dlexp.plots")):
        assert below(imports(module), *BUILDS) == set(), module


def test_the_lab_judges_without_torch() -> None:
    """Only doing what is still to be done needs it; the process that judges again starts in half a second."""
    for module in inside("dlexp.lab"):
        if module != "dlexp.lab.jobs":
            assert below(imports(module), *BUILDS) == set(), module
    assert not {"torch", "pandas"} & loaded_by("import dlexp.lab, dlexp.lab.command, dlexp.lab.atlas")


def test_only_the_command_line_calls_hydra_main() -> None:
    """Everybody else composes without touching Hydra's global state."""
    callers = {
        module
        for module in MODULES
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "hydra.main"
    }
    assert callers == {"dlexp.cli"}
    assert [m for m in MODULES if below(imports(m), "hydra.main")] == []


def test_nothing_imports_the_command_line() -> None:
    """But `python -m dlexp`."""
    assert [m for m in MODULES if below(imports(m), "dlexp.cli")] == ["dlexp.__main__"]


def test_the_library_knows_neither_experiments_nor_tests() -> None:
    """They import dlexp, never the reverse."""
    for module in MODULES:
        assert below(imports(module), "experiments", "tests") == set(), module


def loaded_by(statement: str) -> set[str]:
    """Which heavy packages a fresh Python has loaded after a statement."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_dlexp_loads_nothing_heavy() -> None:
    """The package alone costs next to nothing."""
    assert loaded_by("import dlexp; dlexp.run; dlexp.load; dlexp.load_sweep; dlexp.plots") == set()


@pytest.mark.parametrize("package", ["report", "plots"])
def test_reports_load_no_torch(package: str) -> None:
    """Nor does pandas come in before a table is asked for, matplotlib before a picture, jinja2 a page."""
    modules = [f"dlexp.{package}.{path.stem}" for path in FILES if path.parent.name == package]
    assert len(modules) > 3
    loaded = loaded_by("; ".join(f"import {module}" for module in modules))
    assert not loaded & {"torch", "torchvision", "pandas", "matplotlib", "numpy", "jinja2"}


def test_the_command_line_loads_no_torch_before_a_run() -> None:
    """`dlexp --help` and tab completion answer at once."""
    assert not loaded_by("import dlexp.cli") & {"torch", "torchvision", "pandas", "sklearn", "tensorboard"}


def test_a_run_on_digits_loads_only_what_it_needs(tmp_path: Path) -> None:
    """No torchvision, no scikit-learn, no pandas, no matplotlib: each would double the start."""
    words = ["train.max_steps=1", "device=cpu", f"outputs={tmp_path}"]
    loaded = loaded_by(f"import dlexp; dlexp.run({words}, quiet=True)")
    assert not loaded & {"torchvision", "sklearn", "pandas", "matplotlib"}
    assert "torch" in loaded

"""Jobs of a sweep in other processes, by every launcher that is installed: pools, SLURM and Ray.

Each worker loads PyTorch, which takes longer than most tests; pytest -m integration runs them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import shell
import slurm
from shell import only_sweep, summaries

pytestmark = pytest.mark.integration


PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


LAUNCHED = ["-m", "model=mlp,rnn", "train.max_steps=20", "record.tensorboard=false"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What jobs leave that Hydra's own launcher runs; a plain rnn takes no pictures."""
    cwd = tmp_path_factory.mktemp("basic")
    assert shell.run(*LAUNCHED, cwd=cwd).returncode == 1
    return summaries(only_sweep(cwd))


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_launcher_gives_what_the_basic_one_gives(
    launcher: str, launched: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(PLUGINS[launcher], reason="dlexp[sweep,ray,slurm] is not installed")
    monkeypatch.setenv("PATH", str(slurm.put(tmp_path / "bin")), prepend=os.pathsep)
    done = shell.fresh(*LAUNCHED, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = summaries(only_sweep(tmp_path))
    assert {k: s["status"] for k, s in found.items()} == {"model=mlp": "finished", "model=rnn": "failed"}
    for name, summary in found.items():
        assert summary["metrics"] == launched[name]["metrics"]


def test_joblib_survives_a_job_that_the_kernel_kills(tmp_path: Path) -> None:
    pytest.importorskip(PLUGINS["joblib"], reason="dlexp[sweep] is not installed")
    shell.put_net(tmp_path, 'if self.kind == "dies" and self.calls > 2: os.kill(os.getpid(), signal.SIGKILL)')
    words = ["-m", "model=custom", "model._target_=own.Net", "+model.kind=dies,a,b", "train.max_steps=5"]
    words += ["record=off", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = shell.fresh(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "a process was killed; what it took down is run again" in done.stderr
    runs = pd.read_csv(only_sweep(tmp_path) / "runs.csv", index_col="model.kind")
    assert runs["status"].to_dict() == {"dies": "failed", "a": "finished", "b": "finished"}
    assert runs["error"]["dies"] == "its process was killed (SIGKILL(-9)); out of memory?"
    assert runs["seed"]["a"] == 0

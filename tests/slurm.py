"""A stand-in for SLURM: the three commands that submitit calls, running the jobs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

SBATCH = """
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
tasks = int(re.search(r"--array=0-(\\d+)", script)[1]) + 1
for task in range(tasks):
    own = {"JOB_ID": 100 + task, "ARRAY_JOB_ID": 100, "ARRAY_TASK_ID": task, "NTASKS": 1, "JOB_NUM_NODES": 1,
           "NODEID": 0, "PROCID": 0, "LOCALID": 0, "JOB_NODELIST": "here"}
    env = os.environ | {f"SLURM_{name}": str(value) for name, value in own.items()}
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["bash", sys.argv[-1]], env=env, **quiet)
print("Submitted batch job 100")
"""
SRUN = """
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[2:] if words[0] in ("--output", "--error") else words[1:]
os.execvp(words[0], words)
"""
SACCT = """
print("JobID|State|NodeList")
print("100_[0-99]|RUNNING|here")
"""


def put(folder: Path) -> Path:
    """The commands in a folder, which is to stand first in PATH."""
    folder.mkdir()
    for name, code in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(f"#!{sys.executable}\n{code.lstrip()}")
        (folder / name).chmod(0o755)
    return folder

"""Makes report.png: the top of the report of a real run, drawn by a browser (Chromium or Chrome on the PATH).

python .github/images/report.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from run import FLAGS

import dlexp
from dlexp.report.command import command

WORDS = ["model.depth=10", "activation=sigmoid", "initializer=xavier_normal", "train.epochs=5"]
SIZE = (1180, 1720)


def main() -> None:
    """Train, report, photograph."""
    target = Path(__file__).with_name("report.png")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        run = dlexp.run([*WORDS, f"hydra.run.dir={folder}/run"], quiet=True)
        command([str(run.folder)])
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        flags = FLAGS.replace("scale-factor=2", "scale-factor=1.5").split()
        page = (run.folder / "report.html").as_uri()
        profile = f"--user-data-dir={folder}/profile"
        subprocess.run([str(browser), *flags, profile, size, f"--screenshot={target}", page], check=True)


if __name__ == "__main__":
    main()

"""Makes tensorboard.png: the Images tab of a real sweep (Chromium on the PATH; pip install -e '.[test]').

python .github/images/images_tab.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

WORDS = ["activation=sigmoid,relu", "initializer=kaiming_normal", "model.depth=10", "train.epochs=15"]
SIZE = {"width": 1180, "height": 760}
ADDRESS = "http://127.0.0.1:6117"


def main() -> None:
    """Sweep, look, photograph."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["record.images=true", f"hydra.sweep.dir={folder}/sweep"]
        subprocess.run([sys.executable, "-m", "dlexp", "-m", *WORDS, *own], check=True)
        words = ["--logdir", f"{folder}/sweep", "--port", ADDRESS.rpartition(":")[2]]
        server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words])
        try:
            while not answers():
                time.sleep(0.5)
            with sync_playwright() as drivers:
                flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
                browser = drivers.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
                page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
                page.goto(f"{ADDRESS}/#images")
                page.get_by_text("mistakes/confusion_test").first.wait_for()
                page.wait_for_timeout(4000)
                page.screenshot(path=Path(__file__).with_name("tensorboard.png"))
                browser.close()
        finally:
            server.terminate()


def answers() -> bool:
    """Has TensorBoard found both runs?"""
    try:
        with urllib.request.urlopen(f"{ADDRESS}/data/runs", timeout=5) as answer:
            return answer.read().count(b"activation=") == 2
    except OSError:
        return False


if __name__ == "__main__":
    main()

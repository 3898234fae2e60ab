"""Makes run.png: the terminal of a real run, drawn by a browser (Chromium or Chrome on the PATH).

python .github/images/run.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

import dlexp.runner
from dlexp import describe
from dlexp.compose import compose
from dlexp.report.terminal import Terminal

WORDS = ["model.depth=12", "activation=sigmoid", "initializer=xavier_normal", "train.epochs=5"]
SIZE = (1050, 545)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=2"
)


class Recorded(Terminal):
    """A terminal that remembers what it printed."""

    def __init__(self, **_: bool) -> None:
        super().__init__()
        self.console = Console(record=True, width=110, force_terminal=True, highlight=False)

    def track(self, steps: int, first: int = 0):  # type: ignore[no-untyped-def]
        """A finished bar instead of a moving one."""
        yield from range(steps)
        self.console.print(f"[green]{'━' * 30} {steps}/{steps}[/] {self._numbers()} [cyan]0:00:00[/]")


def main() -> None:
    """Run, draw, cut."""
    terminal = Recorded()
    dlexp.runner.Terminal = lambda **_: terminal  # type: ignore[assignment,misc]
    terminal.console.print(f"[bold]$ dlexp {' '.join(WORDS)}[/]")
    with tempfile.TemporaryDirectory() as folder:
        request = compose(WORDS)
        shown = Path("outputs/mlp_digits/2026-11-21_10-15-00")
        describe.heading = keep_folder(describe.heading, shown)
        request.config.outputs = folder
        ending = terminal.ending
        terminal.ending = lambda summary, *_: ending(summary, "outputs", shown)  # type: ignore[method-assign]
        dlexp.runner.run(request)
        page = Path(folder) / "page.html"
        page.write_text(terminal.console.export_html(inline_styles=True), encoding="utf-8")
        browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        picture = Path(__file__).with_name("run.png")
        subprocess.run(
            [
                browser,
                *FLAGS.split(),
                f"--user-data-dir={folder}/profile",
                f"--window-size={SIZE[0]},{SIZE[1]}",
                f"--screenshot={picture}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    print(picture)


def keep_folder(heading, shown):  # type: ignore[no-untyped-def]
    """The heading with the folder that a person would see."""
    return lambda *args: {**heading(*args), "folder": str(shown)}


if __name__ == "__main__":
    main()

"""How long until the first step? Against `python -c "import torch"`, processes taking turns.

    python tests/benchmarks/start.py

Measured to the moment the first batch goes forward, from the start of the process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 7

# The loop asks for the first batch right before the first forward pass.
FIRST_STEP = """
import os, sys
sys.argv = ["dlexp"]
import dlexp.data.batches as source
source.Batches.__next__ = lambda self: os._exit(0)
from dlexp.cli import main
main()
"""


def seconds(code: str) -> float:
    """Wall time of a Python process that runs `code` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Print both times and their ratio."""
    seconds("import torch"), seconds(FIRST_STEP)  # files into the cache of the disk
    pairs = [(seconds("import torch"), seconds(FIRST_STEP)) for _ in range(TURNS)]
    bare, first = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(f / b for b, f in pairs)
    print(f"import torch {bare:.2f} s, dlexp to its first step {first:.2f} s: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

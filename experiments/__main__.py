"""python -m experiments --all: runs experiments, judges their claims, writes the atlas."""

from pathlib import Path

from dlexp.lab.command import notebook

if __name__ == "__main__":
    notebook(Path(__file__).parent)

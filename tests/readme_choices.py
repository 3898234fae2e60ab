"""Writes the tables of choices into the README, from the YAML files.

python tests/readme_choices.py
"""

from __future__ import annotations

from pathlib import Path

from dlexp.compose import CONFIGS
from dlexp.report.choices import as_markdown, groups

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- choices -->\n", "<!-- end of choices -->\n"


def tables() -> str:
    """All groups, as `dlexp list --markdown` prints them."""
    return "".join(f"{as_markdown(CONFIGS, group)}\n" for group in groups(CONFIGS))


def main() -> None:
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{tables()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""python -m dlexp: the same as the `dlexp` command."""

from dlexp.cli import main

main()

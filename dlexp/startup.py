"""What a command does before it loads anything."""

from __future__ import annotations

import gc

KEPT = 24 * 2**20  # bytes; glibc keeps twice as many


def collect_rarely() -> None:
    """Look for garbage less often: PyTorch loads a million objects that stay, each looked at time and again.

    Takes 0.7 s off the 5 s of a short run (gc's defaults against these, measured by turns).
    """
    gc.set_threshold(50_000, 20, 100)


def keep_what_is_freed() -> None:
    """Let the C library keep the memory that a step frees for the next one.

    glibc returns large blocks to the system and fetches them again page by page, 2 % of a step of 7 ms with
    every quantity recorded. It learns from a large block that is freed how much to keep (M_MMAP_THRESHOLD in
    mallopt(3)); elsewhere this does nothing.
    """
    bytearray(KEPT)

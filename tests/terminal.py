"""What a program draws on a terminal, as seen from the other side of it."""

from __future__ import annotations

import os
import re
import select

from harness import PATIENCE


def read_until(terminal: int, pattern: str) -> str:
    """What is drawn until there is such a text."""
    drawn = ""
    while not re.search(pattern, re.sub(r"\x1b\[[\d;]*m", "", drawn)):
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"no {pattern!r} in {drawn!r}"
        drawn += os.read(terminal, 65536).decode("utf-8", "replace")
    return drawn


def read_to_end(terminal: int) -> str:
    """What is drawn until the program has ended."""
    drawn = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"no end after {drawn!r}"
        try:
            drawn += os.read(terminal, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return drawn.decode("utf-8", "replace")

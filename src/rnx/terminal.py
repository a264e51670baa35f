"""The terminal that rnx itself runs in: raw mode and its size, where the system has such (not on Windows)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from joblet.command_line import Failure

STDIN, STDOUT = 0, 1
_USUAL = (24, 80)


def check() -> None:
    """Raise Failure where there is no terminal to type on, or none that can be used so."""
    if not os.isatty(STDIN):
        raise Failure("standard input is no terminal: leave out -t")
    try:
        import termios  # noqa: F401
    except ImportError:
        raise Failure("this system has no terminals that -t could use: leave it out, or use Linux or macOS") from None


@contextmanager
def raw() -> Iterator[None]:
    """Hand every key on as it is typed, Ctrl-C too, and write output as it comes, until the end of the block."""
    import termios
    import tty

    before = termios.tcgetattr(STDIN)
    try:
        tty.setraw(STDIN)
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """Rows and columns; the usual ones where there is no terminal."""
    for descriptor in (STDOUT, STDIN):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return _USUAL


async def sizes() -> AsyncGenerator[tuple[int, int]]:
    """Rows and columns whenever they change."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    number = getattr(signal, "SIGWINCH", None)
    if number is not None:
        loop.add_signal_handler(number, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            yield size()
    finally:
        if number is not None:
            loop.remove_signal_handler(number)

"""The user's terminal: raw while a job's terminal is shown in it, and as it was afterwards, however that ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from joblet.command_line import Failure

if TYPE_CHECKING:
    from joblet.client import Terminal

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ROWS, _COLUMNS = 24, 80
"""of a terminal that nobody looks at"""


def can_be_raw() -> bool:
    """Whether stdin is a terminal that can hand on each key."""
    return sys.platform != "win32" and os.isatty(0)


def size() -> tuple[int, int]:
    """Rows and columns of the user's terminal, as far as there is one that tells."""
    for number in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(number)
        except (OSError, ValueError):
            continue
        if rows and columns:
            return rows, columns
    return _ROWS, _COLUMNS


def described() -> Terminal:
    """What a job's terminal is to be, to be shown in this one."""
    from joblet.client import Terminal

    kind = os.environ.get("TERM", "")
    return Terminal(*size(), kind if _KIND.fullmatch(kind) else "")


def check_raw() -> None:
    """Raise Failure where stdin is no terminal that can hand on each key."""
    if sys.platform == "win32":
        raise Failure("a terminal (-t) is not supported on Windows; without it, -i sends lines")
    if not can_be_raw():
        raise Failure("stdin is no terminal; without -t, -i sends what comes from it")


class Ended(Exception):
    """A signal has asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@asynccontextmanager
async def raw() -> AsyncIterator[asyncio.Event]:
    """Stdin hands on each key, also those that would interrupt; gives an event that is set when its size changes.

    SIGTERM and SIGHUP raise Ended from the block, in which the caller's task is.
    """
    if sys.platform == "win32":
        raise AssertionError("check_raw was not asked")
    import termios
    import tty

    before = termios.tcgetattr(0)
    loop, task, resized = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    ended: list[int] = []

    def end(number: int) -> None:
        ended.append(number)
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield resized
    except asyncio.CancelledError:
        if ended and task is not None and not task.uncancel():
            raise Ended(ended[0]) from None
        raise
    finally:
        # At once: to wait until all is written would be for ever, should the terminal be stopped.
        termios.tcsetattr(0, termios.TCSANOW, before)
        for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)

"""A program that whoever executes it waits for, as for one on a slow disk."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Await = Callable[[float], bool]


@contextmanager
def holding_up(program: Path) -> Iterator[Await]:
    """Whoever opens the file waits, for 45 s unless it is killed (fcntl_locking(2), "Leases").

    What it gives waits, for so many seconds, until somebody does; False when nobody did.
    """
    wanted = threading.Event()
    before = signal.signal(signal.SIGIO, lambda *_: wanted.set())
    fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield wanted.wait
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)

"""What a service tells systemd: sd_notify(3), and its watchdog, sd_watchdog_enabled(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping


def notify(*states: str) -> None:
    """Tell systemd what has changed (`READY=1`, `STATUS=...`), where it asks for that. Raises OSError."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send("\n".join(states).encode())


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """The time after which systemd ends process `pid` unless it hears of it; None when it does not ask."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 1e6


@contextlib.asynccontextmanager
async def watchdog() -> AsyncIterator[None]:
    """Meanwhile tell systemd, twice in its time, that this event loop goes round: one that is blocked cannot."""
    seconds = watchdog_seconds(os.environ, os.getpid())
    if seconds is None:
        yield
        return
    task = asyncio.create_task(_feed(seconds / 2), name="watchdog")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _feed(interval: float) -> None:
    while True:
        with contextlib.suppress(OSError):  # systemd is being executed anew; it asks again
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)

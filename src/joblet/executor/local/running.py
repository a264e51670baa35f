"""A job under way, as its monitor on this host has it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from joblet.executor.base import Exit, Lost
from joblet.executor.local import record
from joblet.executor.local import stop as stops
from joblet.executor.local.freezing import Freezing
from joblet.executor.local.input import Feeder, open_feeder
from joblet.executor.local.spawn import Process
from joblet.job import Stop
from joblet.log import fields
from joblet.threads import acquire

log = logging.getLogger(__name__)

Finish = Callable[[str], Awaitable[Exit | Lost]]
"""what has come of the job whose monitor has ended, and why it has, where that is known"""


class Shim:
    """A job under way: its monitor, followed by pidfd."""

    def __init__(
        self,
        directory: Path,
        process: Process,
        started: record.Started,
        freezing: Freezing,
        grace: float,
        finish: Finish,
    ) -> None:
        """`grace` is how many seconds a stop gives that does not say it."""
        self.pid = process.pid
        self.started_at = started.at
        self._began = started.monotonic
        self._directory = directory
        self._process = process
        self._freezing = freezing
        self._grace = grace
        self._finish = finish
        self._grace_ms = 0
        """of the stops so far; 0: there was none"""
        self._was_frozen = False

    def elapsed(self) -> float:
        """Seconds since its command was exec'd."""
        return time.monotonic() - self._began

    async def wait(self) -> Exit | Lost:
        """Wait until the monitor has ended; what its record says."""
        await self._process.wait()
        # As on a disk that has failed; of one that is not our child we do not know.
        reason = "its monitor could not write its record" if self._process.ended_by_itself else ""
        if self._was_frozen:
            await self._freezing.forget(self._directory.name)
        return await self._finish(reason)

    async def open_input(self) -> Feeder:
        """A way into the job, by its monitor's FIFO. Raises InputOver or OSError."""
        return await acquire(Feeder.close, open_feeder, self._directory)

    async def stop(self, stop: Stop) -> None:
        """The monitor sees to both signals."""
        if stop.grace_ms == 0:
            self._process.send_signal(signal.SIGUSR1)
            return
        grace_ms = round(self._grace * 1000) if stop.grace_ms is None else stop.grace_ms
        # Two that come close together are one to the monitor, which must not take the longer grace for the only one.
        self._grace_ms = min(grace_ms, self._grace_ms or grace_ms)
        try:
            await asyncio.to_thread(stops.write, self._directory, stop, self._grace_ms)
        except OSError as error:  # it ends all the same, by what was said before
            log.warning(
                "stop cannot be told", extra=fields(jobId=self._directory.name, error=error.strerror or str(error))
            )
        self._process.send_signal(signal.SIGTERM)

    async def freeze(self) -> None:
        """By its control group."""
        self._was_frozen = True
        await self._freezing.freeze(self._directory.name)

    async def thaw(self) -> None:
        """By its control group."""
        await self._freezing.thaw(self._directory.name)

    async def is_frozen(self) -> bool:
        """As the kernel has it."""
        self._was_frozen = True  # or had been before, by an earlier server
        return self._freezing.is_frozen(self._directory.name)

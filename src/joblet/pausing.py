"""Whether a job is paused: on disk, by the kernel, and the two brought together again after a crash between them."""

from __future__ import annotations

import logging

from joblet.errors import CannotPause, JobletError, JobNotRunning, StoreFailed
from joblet.executor.base import Running
from joblet.log import fields
from joblet.store import Store

log = logging.getLogger(__name__)


class Pause:
    """Of one job. The mutable state is who has paused it. One call at a time.

    What says that it is paused is written before it stands still, and taken back before it goes on. So a server that
    finds the two to differ can go by the kernel: no client was told otherwise.
    """

    def __init__(self, store: Store, job_id: int, by: str) -> None:
        self.by = by
        """who has paused it; empty while it runs"""
        self._store = store
        self._job_id = job_id

    async def begin(self, running: Running, who: str) -> None:
        """Returns when all stands still. Raises JobNotRunning, CannotPause or StoreFailed, and then it goes on."""
        await self._record(who)
        try:
            await running.freeze()
        except BaseException:
            await self.undo(running)
            raise
        log.info("job paused", extra=fields(jobId=self._job_id, by=who))

    async def end(self, running: Running, who: str) -> None:
        """Let it go on; one that is not paused does. Raises JobNotRunning, CannotPause or StoreFailed."""
        paused = self.by
        if paused:
            await self._record("")
        await running.thaw()
        if paused:
            log.info("job resumed", extra=fields(jobId=self._job_id, by=who))

    async def undo(self, running: Running) -> None:
        """Let it go on, whatever of a pause there is, also if that cannot be stored."""
        try:
            await running.thaw()
        except CannotPause as error:
            log.error("job cannot go on", extra=fields(jobId=self._job_id, error=str(error)))
        self.by = ""
        try:
            await self._record("")
        except JobletError as error:
            log.warning("end of a pause cannot be stored", extra=fields(jobId=self._job_id, error=str(error)))

    async def settle(self, running: Running) -> None:
        """Of a job that was found again: finish what has begun to be a pause, or undo it."""
        frozen = False
        try:
            frozen = await running.is_frozen()
            if frozen and self.by:
                await running.freeze()
                return
        except CannotPause as error:
            log.warning("job goes on", extra=fields(jobId=self._job_id, error=str(error)))
        if self.by or frozen:
            await self.undo(running)

    async def _record(self, who: str) -> None:
        if await self._store.set_paused(self._job_id, who) is None:
            job = await self._store.get(self._job_id)
            if job is None:
                raise StoreFailed(f"job {self._job_id} has been deleted")
            raise JobNotRunning(self._job_id, job.state)
        self.by = who

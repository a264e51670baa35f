"""What of the past goes, and how: by age, number and size, never a log that is being read; or because somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace

from joblet import clock
from joblet.errors import (
    JobNotEnded,
    JobNotFound,
    JobOfWorkflow,
    StoreFailed,
    WorkflowNotEnded,
    WorkflowNotFound,
)
from joblet.executor.base import Executor
from joblet.ids import parse_id, parse_workflow_id
from joblet.job import Job
from joblet.log import fields
from joblet.logs import LogHub
from joblet.store import Events, Store, Workflows
from joblet.uploads import Uploads

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 30.0
"""between two looks at the ended jobs, at least"""
_BATCH = 200
"""ended jobs or workflows looked at, or measured, at a time: a long history holds nobody up"""
_EVENTS = 100_000
"""that are kept, the newest"""

Ended = tuple[int, int, int]
"""of an ended job: when, its id, and the bytes it takes of the disk"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what has ended is kept; 0 is all of it."""

    max_age: float = 0
    """seconds since the end"""
    max_jobs: int = 0
    max_bytes: int = 0
    """of logs and work directories together"""
    max_workflows: int = 0


def due(longest_ended: Iterable[Ended], count: int, size: int, retention: Retention, now: int) -> list[Ended]:
    """Those to be removed. All that have ended are `count` and take `size` bytes."""
    surplus = count - retention.max_jobs if retention.max_jobs else 0
    excess = size - retention.max_bytes if retention.max_bytes else 0
    oldest = now - round(retention.max_age * 1e9) if retention.max_age else -1
    going: list[Ended] = []
    for job in longest_ended:
        ended_at, _, job_size = job
        if not (ended_at <= oldest or len(going) < surplus or excess > 0):
            break
        going.append(job)
        excess -= job_size
    return going


class Janitor:
    """Removes ended jobs and workflows. The mutable state is the tasks that do so, and that some job has ended since it
    last looked.

    A removal is stored before it begins and forgotten when it is done, so that the next server finishes what this one
    could not.
    """

    def __init__(
        self,
        store: Store,
        workflows: Workflows,
        events: Events,
        executor: Executor,
        uploads: Uploads,
        hub: LogHub,
        retention: Retention,
    ) -> None:
        self._store = store
        self._workflows = workflows
        self._events = events
        self._executor = executor
        self._uploads = uploads
        self._hub = hub
        self._retention = retention
        self._clock = clock.SteadyClock()
        self._clock.on_set = _tell_of_clock
        self.on_deleted: Callable[[str, int], None] = lambda kind, number: None
        """told of each `job` or `workflow` that goes by age, number or size, by its id"""
        self._news = asyncio.Event()
        self._removing: set[asyncio.Task[object]] = set()
        self._task = asyncio.create_task(self._run(), name="janitor")

    def on_end(self, job: Job) -> None:
        """A job has ended: its files may not be needed any more, and there may be more jobs than are to be kept.

        A workflow's files stay for its other jobs.
        """
        if job.uploads is not None and job.part is None:
            self._start(self._remove_unneeded(job.uploads.folder))
        self._news.set()

    async def delete(self, job_id: str) -> None:
        """Remove an ended job and its log. Its readers keep what they have open.

        Raises JobNotFound, JobNotEnded or, when its workflow has not ended, JobOfWorkflow.
        """
        job = await self._store.get(parse_id(job_id))
        if job is None:
            raise JobNotFound(job_id)
        if not await self._store.delete(job.id):
            if job.part is not None and job.state.final:
                raise JobOfWorkflow(job.id, job.part.workflow_id)
            raise JobNotEnded(job.id, job.state)
        await self._remove(job.id)

    async def delete_all(self, owner: str | None = None) -> tuple[int, int]:
        """Remove every ended job, or those of an owner: how many go, and how many stay because they, or their
        workflows, have not ended.
        """
        gone = await self._store.delete_all(owner)
        self._start(self._remove_all(gone))
        return len(gone), await self._store.count_unfinished(owner) + await self._store.count_kept(owner)

    async def delete_workflow(self, workflow_id: str) -> None:
        """Remove an ended workflow with its jobs, their logs and all its files.

        Raises WorkflowNotFound or WorkflowNotEnded.
        """
        workflow = await self._workflows.get(parse_workflow_id(workflow_id))
        if workflow is None:
            raise WorkflowNotFound(workflow_id)
        jobs = await self._workflows.delete(workflow.id)
        if jobs is None:
            raise WorkflowNotEnded(workflow.id, workflow.state)
        await self._remove_all(jobs)
        await self._remove_workflow(workflow.id, workflow.uploads)

    async def close(self) -> None:
        """Stop removing; what is left is removed by the next server."""
        for task in (self._task, *self._removing):
            task.cancel()
        await asyncio.gather(self._task, *self._removing, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._remove_all(await self._store.deleted())
                for workflow_id, uploads in await self._workflows.deleted():
                    await self._remove_workflow(workflow_id, uploads)
                await self._look_at_workflows()
                await self._look_at_jobs()
                await self._events.trim(_EVENTS)
            except StoreFailed as error:
                log.warning("ended jobs cannot be removed now", extra=fields(error=str(error)))
            except Exception:
                log.exception("removal of ended jobs failed")
            await asyncio.sleep(_PAUSE_SECONDS)
            # Age alone needs no news, but no more often than this either.
            if not self._retention.max_age:
                await self._news.wait()

    async def _look_at_workflows(self) -> None:
        bounds = Retention(self._retention.max_age, self._retention.max_workflows)
        if bounds == Retention():
            return
        count = await self._workflows.count_ended() if bounds.max_jobs else 0
        now, after, removed = self._clock.now_ns(), (-1, 0), 0
        while batch := await self._workflows.ended(_BATCH, after):
            going = due([(*workflow, 0) for workflow in batch], count, 0, bounds, now)
            for ended_at, workflow_id, _ in going:
                after, count = (ended_at, workflow_id), count - 1
                if not any(map(self._hub.is_read, await self._workflows.job_ids(workflow_id))):
                    with contextlib.suppress(WorkflowNotFound, WorkflowNotEnded):  # deleted, or tried again, meanwhile
                        await self.delete_workflow(str(workflow_id))
                        self.on_deleted("workflow", workflow_id)
                        removed += 1
            if len(going) < len(batch):
                break
        if removed:
            log.info("ended workflows removed", extra=fields(count=removed))

    async def _look_at_jobs(self) -> None:
        bounds = replace(self._retention, max_workflows=0)
        if bounds == Retention():
            return
        if bounds.max_bytes:
            await self._measure_all(await self._store.unmeasured())
        count = await self._store.count_ended() - await self._store.count_kept() if bounds.max_jobs else 0
        size = await self._store.sum_disk_bytes() if bounds.max_bytes else 0
        now, after, removed = self._clock.now_ns(), (-1, 0), 0
        while batch := await self._store.ended(_BATCH, after):
            going = due(batch, count, size, bounds, now)
            for ended_at, job_id, job_size in going:
                after, count, size = (ended_at, job_id), count - 1, size - job_size
                if not self._hub.is_read(job_id) and await self._store.delete(job_id):
                    self.on_deleted("job", job_id)
                    await self._remove(job_id)
                    removed += 1
            if len(going) < len(batch):
                break
        if removed:
            log.info("ended jobs removed", extra=fields(count=removed))

    async def _measure_all(self, jobs: list[int]) -> None:
        for start in range(0, len(jobs), _BATCH):  # which share a commit
            await asyncio.gather(*map(self._measure, jobs[start : start + _BATCH]))

    async def _measure(self, job_id: int) -> None:
        size = await self._executor.disk_bytes(job_id)
        await self._store.set_disk_bytes(job_id, max(size, 1))

    def _start(self, removal: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(removal)
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _remove_all(self, jobs: list[int]) -> None:
        for job_id in jobs:
            await self._remove(job_id)

    async def _remove(self, job_id: int) -> None:
        try:
            await self._executor.remove(job_id)
        except OSError as error:
            log.error("job directory cannot be removed", extra=fields(jobId=job_id, error=str(error)))
            return
        with contextlib.suppress(StoreFailed):  # it is deleted; the row is forgotten at the next look
            await self._store.forget(job_id)

    async def _remove_workflow(self, workflow_id: int, uploads: str) -> None:
        """Remove what a deleted workflow leaves beside its jobs."""
        try:
            await self._executor.remove_shared(workflow_id)
        except OSError as error:
            log.error("workflow directory cannot be removed", extra=fields(workflowId=workflow_id, error=str(error)))
            return
        if not uploads or await self._remove_uploads(uploads):
            with contextlib.suppress(StoreFailed):  # as for a job
                await self._workflows.forget(workflow_id)

    async def _remove_unneeded(self, folder: str) -> None:
        """Remove uploads, but for those of a recurring schedule, or for another attempt. The last to end finds none."""
        with contextlib.suppress(StoreFailed):  # the next server removes what nobody has
            if not await self._store.needs_uploads(folder):
                await self._remove_uploads(folder)

    async def _remove_uploads(self, folder: str) -> bool:
        """Whether they are gone."""
        try:
            await self._uploads.remove(folder)
        except OSError as error:
            log.error("uploaded files cannot be removed", extra=fields(error=str(error)))
            return False
        return True


def _tell_of_clock(seconds: float) -> None:
    log.warning("the clock was set; for a day ages are told by the old one", extra=fields(seconds=round(seconds)))

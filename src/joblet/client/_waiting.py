"""Waiting for the ends of jobs: told by the server's events, never asked for again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from joblet.client.errors import OutOfRange
from joblet.client.jobs import ENDED, JobInfo

if TYPE_CHECKING:
    from joblet.client.client import Client

_AT_A_TIME = 32
"""questions that are under way at a time"""


async def wait_for(client: Client, job_id: str) -> JobInfo:
    """How one job has ended, as soon as it has."""
    # A server of before `waitForEnd` answers at once: there the events tell, of an end of before too.
    while not (job := await client.status(job_id, wait_for_end=True, reconnect=True)).ended:
        await _next_end(client, {job_id}, 0, job=job_id)
    return job


async def attempts(client: Client, job_id: str) -> AsyncGenerator[JobInfo]:
    """How a job has ended, and each attempt that follows it, as soon as they have."""
    while job_id:
        job = await wait_for(client, job_id)
        yield job
        job_id = job.retried_by


async def wait_for_last(client: Client, job_id: str) -> JobInfo:
    """How the last attempt of a job has ended, as soon as it has."""
    while (job := await wait_for(client, job_id)).retried_by:
        job_id = job.retried_by
    return job


async def wait_for_any(client: Client, job_ids: Sequence[str]) -> list[JobInfo]:
    """Those of the jobs that have ended, as soon as one has: one stream of events, however many they are.

    A job has ended when the last of its attempts has, which is in its place.
    """
    while True:
        # What is later than an event that is known before the jobs are asked is missed neither there nor here.
        known = await _latest_event(client, max(job_ids, key=lambda job_id: (len(job_id), job_id)))
        jobs = await statuses(client, job_ids, reconnect=True)
        if ended := [job for job in jobs if job.ended and not job.retried_by]:
            return ended
        job_ids = [job.retried_by or job.id for job in jobs]
        if not any(job.retried_by for job in jobs):
            await _next_end(client, set(job_ids), known)


async def statuses(client: Client, job_ids: Sequence[str], *, reconnect: bool = False) -> list[JobInfo]:
    """What the server knows of each."""
    jobs: list[JobInfo] = []
    for start in range(0, len(job_ids), _AT_A_TIME):
        asked = (client.status(job_id, reconnect=reconnect) for job_id in job_ids[start : start + _AT_A_TIME])
        jobs += await asyncio.gather(*asked)
    return jobs


async def _latest_event(client: Client, job_id: str) -> int:
    latest = 0
    async with aclosing(client.events(job=job_id, follow=False, reconnect=True)) as events:
        async for event in events:
            latest = event.sequence
    return latest


async def _next_end(client: Client, job_ids: set[str], after: int, job: str = "") -> None:
    """Return when one of the jobs has ended, or when the events do not tell and the jobs have to be asked."""
    try:
        async with aclosing(client.events(after, job=job, reconnect=True)) as events:
            async for event in events:
                if event.job_id in job_ids and event.status in ENDED:
                    return
    except OutOfRange:  # so much has happened meanwhile that it is not all kept
        return

"""What a workflow adds to its jobs: a chain against the same jobs one after the other, and a wide fan-out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample
from benchmarks.site import connected, serving
from joblet.client import Client

ONE_BY_ONE = "jobs one by one"


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """Seconds for each job."""
    length, width = (5, 10) if short else (100, 1000)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        yield Contest(
            (
                Figure(f"step of a chain of {length}", "s"),
                Figure(f"step of a chain of {length}, over the job's own time", "s", aim=Aim(0.010)),
            ),
            {OURS: workflow(client, chain(length), length), ONE_BY_ONE: one_by_one(client, length)},
            rounds=3,
        )
        yield Contest(
            (Figure(f"job of a fan-out of {width}", "s"),),
            {OURS: workflow(client, fan(width), width)},
            rounds=3,
            warm_up=0,
        )


def chain(length: int) -> str:
    jobs = [f"  j{n}: {{command: 'true'" + (f", requires: [j{n - 1}]" if n else "") + "}" for n in range(length)]
    return "\n".join(["jobs:", *jobs]) + "\n"


def fan(width: int) -> str:
    return "jobs:\n" + "".join(f"  j{n}: {{command: 'true'}}\n" for n in range(width))


def workflow(client: Client, yaml: str, count: int) -> Round:
    async def measure() -> Sample:
        began = time.perf_counter()
        made = await client.run_workflow("bench.yaml", text=yaml)
        end = await made.wait()
        took = time.perf_counter() - began
        assert end.workflow.status == "COMPLETED", end.workflow
        assert len(end.jobs) == count
        return await _sample(client, took, [job.job_id for job in end.jobs])

    return measure


def one_by_one(client: Client, count: int) -> Round:
    async def measure() -> Sample:
        ids = []
        began = time.perf_counter()
        for _ in range(count):
            job = await client.run("true", wait_for_end=True)
            ids.append(job.id)
        return await _sample(client, time.perf_counter() - began, ids)

    return measure


async def _sample(client: Client, took: float, ids: list[str]) -> Sample:
    """Seconds for each job, and without what is its own by its receipt: from its exec to its end."""
    own = 0.0
    for job_id in ids:
        job = await client.status(job_id)
        assert job.receipt is not None
        assert job.receipt.wall_usec is not None
        own += job.receipt.wall_usec / 1e6
    return Sample((took / len(ids), (took - own) / len(ids)))

"""Jobs a second: submitted, isolated, limited, run and recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.cases.launch import DO_NOTHING, spawners
from benchmarks.commands import Spawner
from benchmarks.measure import OURS, Contest, Round
from benchmarks.site import connected, serving
from joblet.client import Client

WORKERS = 8


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """With 8 in flight, and with 64."""
    count = 20 if short else 400
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        references = await spawners(stack, *DO_NOTHING)
        for workers in (1, WORKERS, 64):
            yield Contest(
                f"jobs per second, {workers} in flight",
                "/s",
                {OURS: ours(client, count, workers)}
                | {name: theirs(spawner, count, workers) for name, spawner in references.items()},
                higher_is_better=True,
                rounds=5,
                goal="crun 1.5" if workers == WORKERS else "",
            )


def ours(client: Client, count: int, workers: int) -> Round:
    async def measure() -> float:
        slots = asyncio.Semaphore(workers)

        async def one() -> None:
            async with slots:
                job = await client.run(*DO_NOTHING, wait_for_end=True)
                assert job.info.status == "COMPLETED", job.info

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return count / (time.perf_counter() - began)

    return measure


def theirs(spawner: Spawner, count: int, workers: int) -> Round:
    async def measure() -> float:
        return count / await spawner.to_end(count, workers)

    return measure

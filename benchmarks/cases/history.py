"""What many jobs of the past cost: the start of the server, and each list and status."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

from harness import Server
from history import write_ended_jobs

from benchmarks.cases.launch import run_until
from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample
from benchmarks.site import connected, serving
from joblet.client import Client

YOUNG = "with 10 jobs"
REPEATED = 200
"""calls of a round"""


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """The reference is the same server with ten jobs of the past."""
    pasts, running = ((100,), 5) if short else ((1000, 100_000), 1_000)
    async with AsyncExitStack() as stack:
        young = await stack.enter_async_context(aged(10))
        few = await stack.enter_async_context(connected(young))
        for series, call in CALLS.items():
            yield Contest((Figure(f"{series}, 10 jobs ended", "s", series=series, at=10),), {OURS: call(few)})
        for past in pasts:
            async with aged(past) as old:
                async with connected(old) as many:
                    for series, call in CALLS.items():
                        yield Contest(
                            (Figure(f"{series}, {past} jobs ended", "s", aim=Aim(1.1, YOUNG), series=series, at=past),),
                            {OURS: call(many), YOUNG: call(few)},
                        )
                    if past == pasts[-1]:
                        await run_until(many, running)
                if past == pasts[-1]:
                    name = f"start with {running} running and {past} ended"
                    yield Contest(
                        (Figure(name, "s", aim=Aim(1.0)),),
                        {OURS: restart(old), YOUNG: restart(young)},
                        rounds=3,
                    )


@asynccontextmanager
async def aged(past: int) -> AsyncIterator[Server]:
    """A server that has run so many jobs."""
    with serving(slots=1200) as server:
        server.stop()
        database = server.state / "joblet.db"
        for name in (database, database.with_suffix(".db-wal"), database.with_suffix(".db-shm")):
            name.unlink(missing_ok=True)
        await asyncio.to_thread(write_ended_jobs, database, past)
        for number in range(1, past + 1):
            os.mkdir(f"{server.state}/jobs/{number}")
        server.start()
        yield server


def status(client: Client) -> Round:
    return repeated(lambda: client.status("5"))


def listing(client: Client) -> Round:
    return repeated(lambda: client.list(limit=10))


CALLS = {"status": status, "list of 10": listing}


def repeated(call: Callable[[], Awaitable[object]]) -> Round:
    """Seconds of a call, the median of a round's: what else the machine does takes some of them ten times as long."""

    async def measure() -> Sample:
        took = []
        for _ in range(REPEATED):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)
        return Sample((median(took),))

    return measure


def restart(server: Server) -> Round:
    """Seconds from exec, Python's own start included, until it accepts connections."""

    async def measure() -> Sample:
        server.kill()
        began = time.perf_counter()
        server.start()
        return Sample((time.perf_counter() - began,))

    return measure

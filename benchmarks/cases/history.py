"""What many jobs of the past cost: the start of the server, and each list and status."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from harness import Server
from history import write_ended_jobs

from benchmarks.cases.launch import run_until
from benchmarks.measure import OURS, Contest, Round
from benchmarks.site import connected, serving
from joblet.client import Client

YOUNG = "with 10 jobs"


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """The reference is the same server with ten jobs of the past."""
    past, running = (100, 5) if short else (100_000, 1_000)
    async with aged(10) as young, aged(past) as old:
        async with AsyncExitStack() as stack:
            few = await stack.enter_async_context(connected(young))
            many = await stack.enter_async_context(connected(old))
            for name, call in (("status", status), ("list of 20", listing)):
                yield Contest(
                    f"{name}, {past} jobs ended",
                    "s",
                    {OURS: call(many), YOUNG: call(few)},
                    goal=f"{YOUNG} 1.0",
                )
            await run_until(many, running)
        yield Contest(
            f"start with {running} running and {past} ended",
            "s",
            {OURS: restart(old), YOUNG: restart(young)},
            rounds=3,
        )


@asynccontextmanager
async def aged(past: int) -> AsyncIterator[Server]:
    """A server that has run so many jobs."""
    with serving() as server:
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
    async def measure() -> float:
        began = time.perf_counter()
        for _ in range(50):
            await client.status("5")
        return (time.perf_counter() - began) / 50

    return measure


def listing(client: Client) -> Round:
    async def measure() -> float:
        began = time.perf_counter()
        for _ in range(50):
            await client.list(limit=20)
        return (time.perf_counter() - began) / 50

    return measure


def restart(server: Server) -> Round:
    """Seconds from exec, Python's own start included, until it accepts connections."""

    async def measure() -> float:
        server.kill()
        began = time.perf_counter()
        server.start()
        return time.perf_counter() - began

    return measure

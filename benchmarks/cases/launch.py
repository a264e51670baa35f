"""From the call to the command: one launch after the other, many at once, and beside many that run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.commands import Spawner, spawners
from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample, percentile
from benchmarks.site import connected, in_flight, serving
from joblet.client import Client

SAY = ("/bin/echo", "x")
"""a command whose first byte tells that it has been exec'd"""
DO_NOTHING = ("/bin/true",)


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """Each is held before the next is asked for: the server has more jobs then."""
    count = 3 if short else 50
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(slots=1200))
        client = await stack.enter_async_context(connected(server))
        references, absent = await spawners(stack, *SAY)
        for running, at_once in ((0, 1), (10, 2)) if short else ((0, 1), (0, 8), (0, 64), (100, 1), (1000, 1)):
            await run_until(client, running)
            each = max(count, 4 * at_once)
            name = f"launch, {running} jobs running" + (f", {at_once} at once" if at_once > 1 else "")
            yield Contest(
                (
                    Figure(name, "s", aim=Aim(1.0, "bwrap") if at_once == 1 else None),
                    Figure(f"{name}, slowest tenth", "s"),
                ),
                {OURS: launch(client, each, at_once)}
                | {name: to_exec(spawner, each, at_once) for name, spawner in references.items()},
                absent,
                rounds=4,
            )


def to_exec(spawner: Spawner, count: int, at_once: int) -> Round:
    """A bare program, until the first byte of its command."""

    async def measure() -> Sample:
        return _sample(await spawner.to_exec(count, at_once))

    return measure


def launch(client: Client, count: int, at_once: int) -> Round:
    """The call that answers when the command has been exec'd; durable, over mutual TLS, with limits."""

    async def measure() -> Sample:
        times = []

        async def one() -> None:
            began = time.perf_counter()
            job = await client.run(*SAY, wait_for_start=True)
            times.append(time.perf_counter() - began)
            await job.wait()

        await in_flight(one, count, at_once)
        return _sample(times)

    return measure


def _sample(times: list[float]) -> Sample:
    return Sample((percentile(times, 0.5), percentile(times, 0.9)), times)


async def run_until(client: Client, count: int) -> None:
    """Have so many jobs run beside; they stay until their server is closed."""
    there = sum([1 async for job in client.list_all() if job.status == "RUNNING"])
    for begin in range(there, count, 50):
        some = range(begin, min(begin + 50, count))
        await asyncio.gather(*(client.run("sleep", "100000", wait_for_start=True, max_cpu=1) for _ in some))

"""From the call to the command: one launch after the other, many at once, and beside many that run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks import commands
from benchmarks.commands import Spawner
from benchmarks.measure import OURS, Contest, Round
from benchmarks.site import connected, serving
from joblet.client import Client

SAY = ("/bin/echo", "x")
"""a command whose first byte tells that it has been exec'd"""
DO_NOTHING = ("/bin/true",)


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """Each is held before the next is asked for: the server has more jobs then."""
    count = 3 if short else 20
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        references = await spawners(stack, *SAY)
        for running in (0, 10) if short else (0, 100, 1000):
            await run_until(client, running)
            yield Contest(
                f"launch, {running} jobs running",
                "s",
                {OURS: launch(client, count)} | {name: to_exec(spawner, count) for name, spawner in references.items()},
                goal="bwrap 1.0",
            )


async def spawners(stack: AsyncExitStack, *command: str) -> dict[str, Spawner]:
    """Those of the references that are installed."""
    lines = {"bwrap": commands.bwrap(*command), "unshare": commands.unshare(*command)}
    if commands.there("crun"):
        lines["crun"] = stack.enter_context(commands.crun(*command))
    return {
        name: await stack.enter_async_context(Spawner(line)) for name, line in lines.items() if commands.there(line[0])
    }


def to_exec(spawner: Spawner, count: int) -> Round:
    return lambda: spawner.to_exec(count)


def launch(client: Client, count: int) -> Round:
    """Mean seconds of the call that answers when the command has been exec'd; durable, over mutual TLS, with limits."""

    async def measure() -> float:
        total = 0.0
        for _ in range(count):
            began = time.perf_counter()
            job = await client.run(*SAY, wait_for_start=True)
            total += time.perf_counter() - began
            await job.wait()
        return total / count

    return measure


async def run_until(client: Client, count: int) -> None:
    """Have so many jobs run beside; they stay until their server is closed."""
    there = sum([1 async for job in client.list_all() if job.status == "RUNNING"])
    for begin in range(there, count, 50):
        some = range(begin, min(begin + 50, count))
        await asyncio.gather(*(client.run("sleep", "100000", wait_for_start=True, max_cpu=1) for _ in some))

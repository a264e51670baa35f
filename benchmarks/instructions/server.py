"""What a job costs in the server, in calls that do nothing: both are counted in one run, of the same Python."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from harness import ID_BASE, Server, make_certificates

from benchmarks.instructions.under_valgrind import Opener
from benchmarks.instructions.valgrind import Counter
from benchmarks.site import connected
from joblet.client import Client, Event
from joblet.client.jobs import ENDED

WARM_UP = 2
JOBS = 5
CALLS = 20
ROUNDS = 4


async def count() -> dict[str, object]:
    """Instructions of the server for a job, and of grpclib for a call. Takes about twenty seconds."""
    with tempfile.TemporaryDirectory(prefix="joblet-count-") as name:
        folder = Path(name)
        (folder / "certs").mkdir()
        server = Server(folder, make_certificates(folder / "certs"), isolation={"idBase": ID_BASE or 0x10000000})
        ours, theirs = Counter(folder / "server"), Counter(folder / "echo")
        Opener(folder / "opener")
        server.program = ours.command("benchmarks.instructions.under_valgrind", str(folder / "opener"))
        try:
            await asyncio.to_thread(server.begin, env=ours.environment)
            job, call = await asyncio.gather(_of_a_job(server, ours), _of_a_call(server, theirs))
        finally:
            await asyncio.to_thread(server.close)
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}", "job": round(job), "call": round(call), "job_in_calls": round(job / call, 2)}


async def _of_a_job(server: Server, counter: Counter) -> float:
    """RunJob, its life to the end, and one client that is told of that."""
    await asyncio.to_thread(server.ready)
    async with connected(server) as client, aclosing(client.events()) as events:

        async def run() -> None:
            job = await client.run("true")
            end = await _end(events, job.id)
            assert end.status == "COMPLETED", end

        return await _least(counter, server.pid, run, JOBS)


async def _end(events: AsyncIterator[Event], job_id: str) -> Event:
    async for event in events:
        if event.job_id == job_id and event.status in ENDED:
            return event
    raise AssertionError("the stream of events has ended")


async def _of_a_call(server: Server, counter: Counter) -> float:
    async with _echo(server, counter) as (client, pid):

        async def call() -> None:
            assert (await client.status("1")).id == "1"

        return await _least(counter, pid, call, CALLS)


@asynccontextmanager
async def _echo(server: Server, counter: Counter) -> AsyncIterator[tuple[Client, int]]:
    """A client of a server that only echoes, and its pid."""
    command = counter.command("benchmarks.instructions.echo", str(server.certificates))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=counter.environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with connected(server, port) as client:
            yield client, process.pid
    finally:
        process.stdin.close()
        await process.wait()


async def _least(counter: Counter, pid: int, action: Callable[[], Awaitable[None]], times: int) -> float:
    """Instructions for doing something once, when it has been done before. A machine that is busy only adds to them."""
    await action()  # connects, while that is not slowed
    await counter.begin(pid)
    for _ in range(WARM_UP):
        await action()
    await counter.restart(pid)
    found = []
    for _ in range(ROUNDS):
        for _ in range(times):
            await action()
        found.append(await counter.take(pid) / times)
    return min(found)

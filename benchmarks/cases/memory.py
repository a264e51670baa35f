"""Memory, as proportional set size: the server's, and what each running job adds to it and to the machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from harness import Server

from benchmarks.cases.launch import run_until
from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample
from benchmarks.site import connected, proportional_set_size, serving

MOST = 5_000
"""jobs that run at once"""
BESIDE = 10
"""interpreters"""


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """With none running, and then with many."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(slots=20 if short else MOST))
        client = await stack.enter_async_context(connected(server))
        before = proportional_set_size(server.pid) / 1e6
        for running in (0, 20) if short else (0, 1000, MOST):
            await run_until(client, running)
            yield Contest(
                (
                    Figure(f"memory of the server, {running} jobs running", "MB", series="server", at=running),
                    Figure(f"memory of all, {running} jobs running", "MB", series="all", at=running),
                ),
                {OURS: of_all(server)},
                rounds=3,
                warm_up=0,
            )
            if running:
                yield Contest(
                    (Figure(f"memory of each of {running} running jobs", "MB", aim=Aim(0.2)),),
                    {OURS: of_each(server, before, running), "interpreter": interpreter},
                    rounds=3,
                    warm_up=0,
                )


def of_all(server: Server) -> Round:
    """MB of the server, and of it with its shims."""

    async def measure() -> Sample:
        own, shims = await asyncio.to_thread(sizes, server)
        return Sample((own, own + shims))

    return measure


def of_each(server: Server, before: float, running: int) -> Round:
    """MB that each running job has added, in the server and beside it."""

    async def measure() -> Sample:
        own, shims = await asyncio.to_thread(sizes, server)
        return Sample(((own + shims - before) / running,))

    return measure


def sizes(server: Server) -> tuple[float, float]:
    """MB of the server, and of its jobs' shims together."""
    shims = sum(map(proportional_set_size, shim_processes(server.monitors())))
    return proportional_set_size(server.pid) / 1e6, shims / 1e6


def shim_processes(monitors: list[int]) -> list[int]:
    """The monitors and their inits."""
    found = []
    for pid in monitors:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            found += [pid, *map(int, file.read().split())]
    return found


async def interpreter() -> Sample:
    """A supervisor in Python for each job would be one of these, beside others that it shares its pages with."""
    program = "import asyncio, sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(BESIDE)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readexactly(1)
    size = sum(proportional_set_size(process.pid) for process in processes) / 1e6
    for process in processes:
        await process.communicate(b"")
    return Sample((size / BESIDE,))

"""Memory, as proportional set size: the server's, and what each running job adds to it and to the machine."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.cases.launch import run_until
from benchmarks.measure import OURS, Contest, Round
from benchmarks.site import connected, proportional_set_size, serving


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """With none running, and then with many."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))

        async def of_server() -> float:
            gc.collect()
            return proportional_set_size(server.pid) / 1e6

        before = await of_server()
        yield Contest("memory of the server, idle", "MB", {OURS: of_server}, rounds=3, warm_up=0)
        for running in (20,) if short else (1000,):
            await run_until(client, running)

            async def of_a_job(running: int = running) -> float:
                shims = sum(map(proportional_set_size, shim_processes(server.monitors()))) / 1e6
                return (shims + await of_server() - before) / running

            yield Contest(
                f"memory of a running job, {running} of them",
                "MB",
                {OURS: of_a_job, "interpreter": interpreter()},
                rounds=3,
                warm_up=0,
                goal="0.2 MB",
            )


def shim_processes(monitors: list[int]) -> list[int]:
    """The monitors and their inits."""
    found = []
    for pid in monitors:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            found += [pid, *map(int, file.read().split())]
    return found


def interpreter() -> Round:
    """A supervisor in Python for each job would be one of these."""

    async def measure() -> float:
        program = "import asyncio, sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, **pipes)
        assert process.stdout is not None
        await process.stdout.readexactly(1)
        size = proportional_set_size(process.pid) / 1e6
        await process.communicate(b"")
        return size

    return measure

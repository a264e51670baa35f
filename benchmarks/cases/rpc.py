"""Unary calls: many clients ask for a job's status, of joblet and of a grpc.aio server with an answer ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.measure import OURS, Contest
from benchmarks.reference import serving_reference
from benchmarks.site import connected, cpu_seconds, run_clients, serving


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """By 1, 16 and 128 connections: calls a second, the slowest hundredth, and what a call costs the server."""
    calls = 200 if short else 4000
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        job = await client.run("true")
        await job.wait()
        reference = stack.enter_context(serving_reference(server.certificates))
        for connections in (1, 16, 128):
            ours, theirs = (
                Load(port, server.certificates, pid, job.id, connections, calls)
                for port, pid in ((server.port, server.pid), (reference.port, reference.pid))
            )
            name = f"{connections} connections" if connections > 1 else "1 connection"
            yield Contest(
                f"calls per second, {name}",
                "/s",
                {OURS: ours.rate, "grpc.aio": theirs.rate},
                higher_is_better=True,
                rounds=5,
                goal="grpc.aio 1.0",
            )
            yield Contest(
                f"slowest hundredth of calls, {name}", "s", {OURS: ours.tail, "grpc.aio": theirs.tail}, rounds=5
            )
            yield Contest(
                f"processor time of a call, {name}", "s", {OURS: ours.cost, "grpc.aio": theirs.cost}, rounds=5
            )


class Load:
    """Stock clients in a process of their own."""

    def __init__(self, port: int, certificates: Path, pid: int, job_id: str, connections: int, calls: int) -> None:
        self._pid = pid
        self._calls = calls
        self._arguments = (port, certificates, job_id, connections, calls)

    async def rate(self) -> float:
        """Calls a second."""
        return self._calls / (await self._run())["seconds"]

    async def tail(self) -> float:
        """Seconds that 99 of 100 calls do not take."""
        return (await self._run())["p99"]

    async def cost(self) -> float:
        """Seconds of the server's processor time for each."""
        before = cpu_seconds(self._pid)
        await self._run()
        return (cpu_seconds(self._pid) - before) / self._calls

    async def _run(self) -> dict[str, float]:
        return await run_clients("calls", *self._arguments)

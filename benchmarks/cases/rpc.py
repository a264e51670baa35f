"""Unary calls: many clients ask for a running job's status, of joblet and of servers with an answer ready.

Of these one is grpc.aio's. The other is what joblet stands on, with nothing of joblet: the most that it could reach.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample, percentile
from benchmarks.reference import serving_reference
from benchmarks.site import connected, run_clients, serving


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """By 1, 16 and 128 connections: calls a second, the slowest hundredth, and what a call costs the server."""
    calls = 200 if short else 2500
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        job = await client.run("sleep", "100000", wait_for_start=True)
        reference = stack.enter_context(serving_reference(server.certificates))
        bare = stack.enter_context(serving_reference(server.certificates, "benchmarks.instructions.echo"))
        for connections in (16,) if short else (1, 16, 128):
            name = f"{connections} connections" if connections > 1 else "1 connection"
            aim = Aim(1.0, "grpc.aio")
            yield Contest(
                (
                    Figure(f"calls per second, {name}", "/s", True, aim, series="calls", at=connections),
                    Figure(f"call of {name}, median", "s"),
                    Figure(f"call of {name}, slowest hundredth", "s"),
                    Figure(f"call of {name}, processor time of the server", "s"),
                ),
                {
                    name: load(pid, calls, port, server.certificates, job.id, connections)
                    for name, port, pid in (
                        (OURS, server.port, server.pid),
                        ("grpc.aio", reference.port, reference.pid),
                        ("grpclib alone", bare.port, bare.pid),
                    )
                },
                rounds=3,
            )


def load(pid: int, calls: int, *where: object) -> Round:
    """Stock clients in a process of their own, and what their calls have taken and cost."""

    async def measure() -> Sample:
        found = await run_clients("calls", *where, calls, pid)
        times = found["times"]
        done = len(times)
        values = (done / found["seconds"], percentile(times, 0.5), percentile(times, 0.99), found["cost"] / done)
        return Sample(values, times)

    return measure

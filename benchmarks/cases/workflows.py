"""What a workflow adds to its jobs: a chain against the same jobs one after the other, and a wide fan-out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.measure import OURS, Contest, Round
from benchmarks.site import connected, serving
from joblet.client import Client

ONE_BY_ONE = "jobs one by one"


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """Seconds for each job."""
    length, width = (5, 10) if short else (100, 1000)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        yield Contest(
            f"job of a chain of {length}",
            "s",
            {OURS: workflow(client, chain(length), length), ONE_BY_ONE: one_by_one(client, length)},
            rounds=3,
            goal="10 ms more",
        )
        yield Contest(
            f"job of a fan-out of {width}", "s", {OURS: workflow(client, fan(width), width)}, rounds=3, warm_up=0
        )


def chain(length: int) -> str:
    jobs = [f"  j{n}: {{command: 'true'" + (f", requires: [j{n - 1}]" if n else "") + "}" for n in range(length)]
    return "\n".join(["jobs:", *jobs]) + "\n"


def fan(width: int) -> str:
    return "jobs:\n" + "".join(f"  j{n}: {{command: 'true'}}\n" for n in range(width))


def workflow(client: Client, yaml: str, count: int) -> Round:
    async def measure() -> float:
        began = time.perf_counter()
        made = await client.run_workflow("bench.yaml", text=yaml)
        end = await made.wait()
        assert end.workflow.status == "COMPLETED", end.workflow
        return (time.perf_counter() - began) / count

    return measure


def one_by_one(client: Client, count: int) -> Round:
    async def measure() -> float:
        began = time.perf_counter()
        for _ in range(count):
            job = await client.run("true")
            await job.wait()
        return (time.perf_counter() - began) / count

    return measure

"""Jobs a second: submitted, isolated, limited, run and recorded."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack

from benchmarks import slurm
from benchmarks.cases.launch import DO_NOTHING
from benchmarks.commands import Spawner, missing, spawners
from benchmarks.measure import OURS, Aim, CannotRunError, Contest, Figure, Round, Sample
from benchmarks.site import connected, in_flight, serving
from joblet.client import Client

WORKERS = 8
"""with these in flight each goes on for longer, and Slurm takes part"""
_ROUND_SECONDS, _LONG_ROUND_SECONDS = 1.5, 10.0

Run = Callable[[int, int], Awaitable[float]]
"""so many jobs by so many workers, in seconds"""


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """From one in flight to 64."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        programs, absent = await spawners(stack, *DO_NOTHING)
        runs = {OURS: ours(client)} | {name: theirs(spawner) for name, spawner in programs.items()}
        if why := missing("parallel"):
            absent["GNU parallel"] = why
        else:
            runs["GNU parallel"] = gnu_parallel
        for workers in (1, WORKERS) if short else (1, 4, WORKERS, 16, 64):
            with ExitStack() as while_held:
                seconds = 0.1 if short else _LONG_ROUND_SECONDS if workers == WORKERS else _ROUND_SECONDS
                held, lacking = dict(runs), dict(absent)
                if workers == WORKERS:
                    try:
                        held["Slurm"] = of_slurm(while_held.enter_context(slurm.running()))
                    except CannotRunError as error:
                        lacking["Slurm"] = str(error)
                yield Contest(
                    (
                        Figure(
                            f"jobs per second, {workers} in flight",
                            "/s",
                            higher_is_better=True,
                            aim=Aim(1.5, "crun") if workers == WORKERS else None,
                            series="jobs",
                            at=workers,
                        ),
                    ),
                    {name: sustained(run, workers, seconds) for name, run in held.items()},
                    lacking,
                    rounds=3,
                    warm_up=2,
                )


def sustained(run: Run, workers: int, seconds: float) -> Round:
    """For about so long: each round does as many as the one before would have done in this time; those that warm up
    take less."""
    count, lengths = workers, iter((_ROUND_SECONDS,))

    async def measure() -> Sample:
        nonlocal count
        rate = count / await run(count, workers)
        count = max(workers, round(rate * min(seconds, next(lengths, seconds))))
        return Sample((rate,))

    return measure


def ours(client: Client) -> Run:
    async def run(count: int, workers: int) -> float:
        async def one() -> None:
            job = await client.run(*DO_NOTHING, wait_for_end=True)
            assert job.info.status == "COMPLETED", job.info

        began = time.perf_counter()
        await in_flight(one, count, workers)
        return time.perf_counter() - began

    return run


def theirs(spawner: Spawner) -> Run:
    return spawner.to_end


def of_slurm(cluster: slurm.Slurm) -> Run:
    return lambda count, workers: cluster.to_end(count, workers, *DO_NOTHING)


async def gnu_parallel(count: int, workers: int) -> float:
    """Plain processes: nothing isolated, limited or recorded. Its own start is part of it."""
    began = time.perf_counter()
    command = ("parallel", "--will-cite", f"--jobs={workers}", "-N0", *DO_NOTHING)
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
    await process.communicate(b"x\n" * count)
    if process.returncode:
        raise CannotRunError(f"ended with {process.returncode}")
    return time.perf_counter() - began

#!/opt/joblet/venv/bin/python
"""RunJob beside systemd-run in a machine where both are: a program for tests/vm/service. Results go to its /out."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

PLACES = ["/root/joblet", "/root/joblet/tests", "/job/site"]
sys.path[:0] = PLACES
os.environ["PYTHONPATH"] = ":".join(PLACES)

from benchmarks import machine, report  # noqa: E402  (after the path is set)
from benchmarks.cases.launch import DO_NOTHING, SAY, launch, to_exec  # noqa: E402
from benchmarks.cases.rate import ours, sustained, theirs  # noqa: E402
from benchmarks.commands import Spawner, systemd_run  # noqa: E402
from benchmarks.measure import OURS, Contest, Figure, hold  # noqa: E402
from joblet.client import Client, ClientConfig  # noqa: E402

COUNT = 6
"""launches of a round: all is emulated, and slow"""
WORKERS = 8
SECONDS = 4


async def contests() -> AsyncIterator[Contest]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(ClientConfig.resolve()))
        saying = {name: Spawner(line) for name, line in systemd_run(*SAY).items()}
        doing = {name: Spawner(line) for name, line in systemd_run(*DO_NOTHING).items()}
        for spawner in (*saying.values(), *doing.values()):
            await stack.enter_async_context(spawner)
        yield Contest(
            (Figure("launch, in the machine", "s"), Figure("launch, in the machine, slowest tenth", "s")),
            {OURS: launch(client, COUNT, 1)} | {name: to_exec(spawner, COUNT, 1) for name, spawner in saying.items()},
            rounds=5,
        )
        yield Contest(
            (Figure(f"jobs per second, {WORKERS} in flight, in the machine", "/s", higher_is_better=True),),
            {OURS: sustained(ours(client), WORKERS, SECONDS)}
            | {name: sustained(theirs(spawner), WORKERS, SECONDS) for name, spawner in doing.items()},
            rounds=3,
        )


async def main() -> None:
    results = [result async for contest in contests() for result in await hold(contest)]
    report.save(Path("results.json"), machine.describe(), [results])


asyncio.run(main())

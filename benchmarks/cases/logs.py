"""Logs: bytes a second to one client and to a hundred, and the time from a job's write to the client's receipt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import OURS, Aim, Contest, Figure, Round, Sample, percentile
from benchmarks.reference import serving_reference
from benchmarks.site import connected, run_clients, serving
from joblet.client import Client

CHUNK = 64 << 10
LINE = 80
WRITES = {"64 KiB writes": CHUNK, "80-byte lines": LINE}
UNSEEN = 200
"""lines that a program writes before those that count"""
WRITE_BYTES = """
import os, sys
size, count = map(int, sys.argv[1:])
data = (b"x" * 79 + b"\\n") * (size // 80 + 1)
for _ in range(count):
    os.write(1, data[:size])
"""
WRITE_TIMES = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    os.write(1, b"%d\\n" % time.time_ns())
    time.sleep(0.002)
"""


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """From what jobs have written, and while they write."""
    size = 4 << 20 if short else 256 << 20
    many = 10 if short else 100
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        reference = stack.enter_context(serving_reference(server.certificates))
        relay = stack.enter_context(serving_reference(server.certificates, "benchmarks.relay"))
        ours, theirs, plain = (Clients(each.port, server.certificates) for each in (server, reference, relay))
        for name, chunk in WRITES.items():
            yield throughput(f"log of {name}, to 1", ours, theirs, [await write(client, size, chunk)], size, 1.0)
        share = max(1, size // many // CHUNK) * CHUNK
        one = await write(client, share)
        yield throughput(f"log of one job, to {many}", ours, theirs, [one] * many, share, 0.9)
        jobs = list(await asyncio.gather(*(write(client, share) for _ in range(many))))
        yield throughput(f"logs of {many} jobs, to {many}", ours, theirs, jobs, share, 0.9)
        for name, chunk in WRITES.items():
            some = size if chunk == CHUNK else size // 8
            yield Contest(
                (Figure(f"log while it is written, {name}", "MB/s", higher_is_better=True),),
                {OURS: ours.live("live", chunk, some), "TLS socket": plain.live("relay_live", chunk, some)},
                rounds=3,
            )
        lines = 100 if short else 2000
        program = ["python3", "-c", WRITE_TIMES, str(lines + UNSEEN)]
        yield Contest(
            (
                Figure("from write to receipt, median", "s"),
                Figure("from write to receipt, slowest hundredth", "s", aim=Aim(2.0, "TLS socket")),
            ),
            {
                OURS: ours.delays("delays", program, lines),
                "TLS socket": plain.delays("relay_delays", program, lines),
                "grpc.aio": theirs.delays("delays", [f"delays:{lines + UNSEEN}"], lines),
            },
            rounds=3,
        )


def throughput(name: str, ours: Clients, theirs: Clients, jobs: list[str], size: int, aim: float) -> Contest:
    """Logs of so many bytes each, one to a client, against as many streams of the same bytes from memory."""
    return Contest(
        (Figure(name, "MB/s", higher_is_better=True, aim=Aim(aim, "grpc.aio")),),
        {OURS: ours.throughput(jobs, size), "grpc.aio": theirs.throughput([f"{size}:{CHUNK}"] * len(jobs), size)},
        rounds=3,
    )


def writing(chunk: int, size: int) -> list[str]:
    """A command that writes about so many bytes, in such pieces."""
    return ["python3", "-c", WRITE_BYTES, str(chunk), str(size // chunk)]


async def write(client: Client, size: int, chunk: int = CHUNK) -> str:
    """A job that has written so many bytes, in such pieces."""
    job = await client.run(*writing(chunk, size), name="writes")
    end = await job.wait()
    assert end.status == "COMPLETED", end
    return job.id


class Clients:
    """Of one server, in a process of their own."""

    def __init__(self, port: int, certificates: Path) -> None:
        self._where = (port, certificates)

    def throughput(self, jobs: list[str], size: int) -> Round:
        """MB a second, of all together."""

        async def measure() -> Sample:
            found = await self._run("logs", ",".join(jobs), len(jobs), size)
            return Sample((len(jobs) * size / 1e6 / found["seconds"],))

        return measure

    def live(self, what: str, chunk: int, size: int) -> Round:
        """MB a second, of a command from its order on."""
        exactly = size // chunk * chunk

        async def measure() -> Sample:
            found = await self._run(what, json.dumps(writing(chunk, size)), exactly)
            return Sample((exactly / 1e6 / found["seconds"],))

        return measure

    def delays(self, what: str, command: list[str], lines: int) -> Round:
        """From each line's writing to its receipt."""

        async def measure() -> Sample:
            times = (await self._run(what, json.dumps(command), lines))["times"]
            return Sample((percentile(times, 0.5), percentile(times, 0.99)), times)

        return measure

    async def _run(self, what: str, *arguments: object) -> dict[str, Any]:
        return await run_clients(what, *self._where, *arguments)

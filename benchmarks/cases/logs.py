"""Logs: bytes a second to one client and to a hundred, and the time from a job's write to the client's receipt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.measure import OURS, Contest, Round
from benchmarks.reference import serving_reference
from benchmarks.site import connected, run_clients, serving
from joblet.client import Client

CHUNK = 64 << 10
UNSEEN = 1000
"""lines that a job writes before those that count: its follower has yet to start"""
WRITE_TIMES = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    os.write(1, b"%d\\n" % time.time_ns())
    time.sleep(0.002)
"""


async def contests(*, short: bool) -> AsyncIterator[Contest]:
    """While the job writes, and from what it has written."""
    size = 4 << 20 if short else 256 << 20
    lines = 100 if short else 2000
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving())
        client = await stack.enter_async_context(connected(server))
        reference = stack.enter_context(serving_reference(server.certificates))
        ours, theirs = Clients(server.port, server.certificates), Clients(reference.port, server.certificates)
        written = await write(client, size)
        for followers in (1, 100):
            each = max(1, size // followers // CHUNK) * CHUNK
            job = written if followers == 1 else await write(client, each)
            yield Contest(
                f"log of {each / (1 << 20):.3g} MiB to {followers}",
                "MB/s",
                {
                    OURS: ours.throughput(job, followers, each),
                    "grpc.aio": theirs.throughput(f"{each}:{CHUNK}", followers, each),
                },
                higher_is_better=True,
                rounds=5,
                goal="grpc.aio 1.0" if followers == 1 else "grpc.aio 0.9",
            )
        for share in ("p50", "p99"):
            yield Contest(
                f"from write to receipt, {share}",
                "s",
                {
                    OURS: delay_of_ours(client, ours, lines, share),
                    "grpc.aio": theirs.delay(f"delays:{lines}", lines, share),
                },
                rounds=5,
            )


async def write(client: Client, size: int) -> str:
    """A job that has written so many bytes."""
    job = await client.run("head", "-c", str(size), "/dev/urandom", name="writes")
    end = await job.wait()
    assert end.status == "COMPLETED", end
    return job.id


def delay_of_ours(client: Client, clients: Clients, lines: int, share: str) -> Round:
    async def measure() -> float:
        job = await client.run("python3", "-c", WRITE_TIMES, str(lines + UNSEEN))
        return await clients.delay(job.id, lines, share)()

    return measure


class Clients:
    """Stock clients in a process of their own."""

    def __init__(self, port: int, certificates: Path) -> None:
        self._where = [str(port), str(certificates)]

    def throughput(self, job_id: str, followers: int, size: int) -> Round:
        """MB a second, of all together."""

        async def measure() -> float:
            found = await run_clients("logs", *self._where, job_id, followers, size)
            return followers * size / 1e6 / found["seconds"]

        return measure

    def delay(self, job_id: str, lines: int, share: str) -> Round:
        """Seconds from a line's writing to its receipt."""

        async def measure() -> float:
            return (await run_clients("delays", *self._where, job_id, lines))[share]

        return measure

"""What the audit log costs the server: CPU time of its process for a call, with the log and without it.

    python -m benchmarks.audit [--rounds N] [--jobs N] [--reads N] [--folder DIR]

Needs root. Two servers side by side have turns of so many calls, one call after another; a ratio is that of two turns
of one round, so that whatever else the machine does falls on both. The median of the rounds is told.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.site import connected, serving
from joblet.client import Client

_WARM_UP = 100


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used, of all its threads (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns(~pid << 3 | 2)


async def _job(client: Client) -> None:
    job = await client.run("true", wait_for_end=True)
    assert job.info is not None
    assert job.info.status == "COMPLETED"


async def _read(client: Client) -> None:
    await client.status("1")


async def measure(rounds: int, jobs: int, reads: int, folder: Path | None) -> None:
    kinds: dict[str, tuple[Callable[[Client], Awaitable[None]], int]] = {
        "RunJob": (_job, jobs),
        "GetJobStatus": (_read, reads),
    }
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(serving(folder, audit={"file": file})) for file in ("audit.log", "")]
        clients = [await stack.enter_async_context(connected(server)) for server in servers]
        for name, (call, times) in kinds.items():
            for client in clients:
                for _ in range(_WARM_UP):
                    await call(client)
            found: list[list[float]] = []
            for _ in range(rounds):
                took = []
                for server, client in zip(servers, clients, strict=True):
                    start = cpu_ns(server.pid)
                    for _ in range(times):
                        await call(client)
                    took.append((cpu_ns(server.pid) - start) / times / 1000)
                found.append(took)
            with_log, without = (statistics.median(column) for column in zip(*found, strict=True))
            ratios = sorted(one / other - 1 for one, other in found)
            quarter = len(ratios) // 4
            print(
                f"{name}: {with_log:.0f} us with, {without:.0f} us without the log: {statistics.median(ratios):+.1%} "
                f"(half of the rounds {ratios[quarter]:+.1%} to {ratios[-1 - quarter]:+.1%})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the servers have their states; a temporary directory")
    options = parser.parse_args()
    asyncio.run(measure(options.rounds, options.jobs, options.reads, options.folder))


if __name__ == "__main__":
    main()

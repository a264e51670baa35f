"""Build and test somebody's checkout in isolation, within limits, and say which of them it was that failed.

python3 ci.py CHECKOUT [COMMAND...]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from joblet.client import Client, JobInfo, JobletError

TESTS = ("python3", "-m", "unittest")


async def build(checkout: Path, command: tuple[str, ...] = TESTS) -> JobInfo:
    """Run a command on a copy of the checkout, with its output on stdout, and return how it has ended.

    It sees no other process, no home directory and none of our files, and ends within two minutes.
    """
    async with Client.from_env() as client:
        job = await client.run(
            *command,
            uploads=[checkout],
            name=f"ci {checkout.name}",
            environment={"CI": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            max_cpu=200,
            max_memory=512,
            max_processes=64,
            run_timeout=120,
            retry=True,
        )
        async for chunk in job.logs(reconnect=True):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
        return await job.wait()


def verdict(job: JobInfo) -> str:
    """A line for whoever pushed."""
    if job.status == "COMPLETED":
        return f"passed (job {job.id})"
    return f"failed: {job.reason} (job {job.id})"


if __name__ == "__main__":
    try:
        ended = asyncio.run(build(Path(sys.argv[1]), tuple(sys.argv[2:]) or TESTS))
    except JobletError as error:
        raise SystemExit(f"not built: {error}") from None
    print(verdict(ended))
    sys.exit(0 if ended.status == "COMPLETED" else 1)

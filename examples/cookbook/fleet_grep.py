"""Look for a pattern in the logs of the newest jobs of several servers at once; each server looks in its own.

python3 fleet_grep.py PATTERN NODE...       (nodes of rnx-config.yml)
"""

from __future__ import annotations

import asyncio
import sys

from joblet.client import Client, JobInfo, JobletError

NEWEST = 20
"""jobs of each server"""


async def grep_job(client: Client, node: str, job: JobInfo, pattern: str) -> list[str]:
    """The lines of one job, each with where it is from."""
    found = b"".join([chunk async for chunk in client.logs(job.id, follow=False, grep=pattern)])
    place = f"{node} {job.name or job.id}"
    return [f"{place}: {line}" for line in found.decode(errors="replace").splitlines()]


async def grep_node(node: str, pattern: str) -> list[str]:
    """The lines of one server, by age of the job; why there are none, if it cannot be asked."""
    try:
        async with Client.from_env(node=node) as client:
            jobs = await client.list(limit=NEWEST)
            parts = await asyncio.gather(*(grep_job(client, node, job, pattern) for job in jobs))
    except JobletError as error:
        return [f"{node}: {error}"]
    return [line for lines in parts for line in lines]


async def main(pattern: str, nodes: list[str]) -> None:
    for lines in await asyncio.gather(*(grep_node(node, pattern) for node in nodes)):
        for line in lines:
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))

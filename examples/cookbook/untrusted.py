"""Run a stranger's Python, say of a course's exercise, and tell what it did: never more than it was granted.

python3 untrusted.py SUBMISSION.py...
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from joblet.client import Client, JobInfo

MOST_OUTPUT = 4096
"""bytes that are taken of a submission"""


@dataclass(frozen=True)
class Verdict:
    """What became of one submission."""

    outcome: str
    """`ok`, or why it was not"""
    output: str


async def judge(client: Client, submission: Path) -> Verdict:
    """Run one submission, with its output cut to size."""
    job = await client.run(
        *("python3", "-I", submission.name),
        uploads=[submission],
        max_cpu=100,
        max_memory=64,
        max_processes=16,
        run_timeout=2,
        retry=True,
    )
    output = b""
    async with aclosing(job.logs()) as chunks:
        async for chunk in chunks:
            output += chunk[: MOST_OUTPUT - len(output)]
            if len(output) == MOST_OUTPUT:
                break
    ended = await job.wait()
    return Verdict(outcome(ended), output.decode(errors="replace"))


def outcome(job: JobInfo) -> str:
    """One word or two for how a job has ended."""
    if job.status == "COMPLETED":
        return "ok"
    return "too slow" if job.status == "STOPPED" else job.reason


async def main(submissions: list[Path]) -> None:
    async with Client.from_env() as client:
        verdicts = await asyncio.gather(*(judge(client, submission) for submission in submissions))
    for submission, verdict in zip(submissions, verdicts, strict=True):
        first = verdict.output.partition("\n")[0][:40]
        print(f"{submission.name}: {verdict.outcome}" + (f" ({first})" if verdict.outcome == "ok" else ""))


if __name__ == "__main__":
    asyncio.run(main([Path(name) for name in sys.argv[1:]]))

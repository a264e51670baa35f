"""Starting the programs that make attempts: as jobs of the server under test. The tests have a second kind, without any
isolation, by which each attempt is shown to be able to succeed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from joblet.client import Client, FailedPrecondition, Job

News = dict[str, Any]


class Run(Protocol):
    """A program under way."""

    directory: str
    """where its output (`log`) and its work directory (`work`) are on the host"""

    def news(self) -> AsyncIterator[News]:
        """The lines that it tells, until it has ended."""

    async def output(self, offset: int) -> bytes:
        """All of its output from a byte on; waits for its end."""

    async def stop(self) -> None:
        """End it, as a user would. No error when it has ended before."""

    async def reason(self) -> str:
        """Wait for its end, and say why it has ended."""

    def host_pids(self) -> list[int]:
        """Its processes' pids on the host, the command's last; empty where they cannot be learnt."""


class Runner(Protocol):
    """Starts programs."""

    async def start(self, arguments: list[str], limits: dict[str, int]) -> Run:
        """Start Python with arguments."""


class JobRun:
    """A job."""

    def __init__(self, job: Job, state_dir: Path) -> None:
        self._job = job
        self._directory = state_dir / "jobs" / job.id
        self.directory = str(self._directory)

    async def news(self) -> AsyncIterator[News]:
        rest = b""
        async with aclosing(self._job.logs()) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield read_line(line)
        if rest:
            yield read_line(rest)

    async def output(self, offset: int) -> bytes:
        return b"".join([chunk async for chunk in self._job.logs(offset=offset)])

    async def stop(self) -> None:
        with contextlib.suppress(FailedPrecondition):
            await self._job.stop()

    async def reason(self) -> str:
        async for _ in self._job.logs(offset=1 << 62):
            pass
        return (await self._job.status()).reason

    def host_pids(self) -> list[int]:
        try:
            monitor = _value(self._directory / "monitor", "pid")
            init = _value(self._directory / "started", "init")
            children = Path(f"/proc/{init}/task/{init}/children")
            return [monitor, init, *map(int, children.read_text().split() if children.exists() else [])]
        except OSError:
            return []


class JobRunner:
    """Starts programs as jobs."""

    def __init__(self, client: Client, state_dir: Path) -> None:
        self._client = client
        self._state_dir = state_dir

    async def start(self, arguments: list[str], limits: dict[str, int]) -> JobRun:
        job = await self._client.run("python3", *arguments, **limits)  # type: ignore[arg-type]
        return JobRun(job, self._state_dir)


def read_line(line: bytes) -> News:
    """A line that a program tells; any other is news of its own."""
    with contextlib.suppress(ValueError):
        news = json.loads(line)
        if isinstance(news, dict):
            return news
    return {"noise": line.decode(errors="replace")[:200]}


def _value(path: Path, key: str) -> int:
    """A `key=value` line of one of the monitor's files."""
    lines = dict(line.split("=", 1) for line in path.read_text(encoding="ascii").splitlines())
    return int(lines[key])

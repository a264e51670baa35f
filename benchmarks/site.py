"""What the contests are held on: a joblet server of its own with real certificates, and its client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import ID_BASE, PATIENCE, Server, cpu_seconds, make_certificates

from joblet.client import Client, ClientConfig

SLOTS = 200
"""jobs at once, for what does not say how many: no contest is about waiting for a slot"""
_OPEN: list[int] = []
"""slots of the servers that stand, the newest last; each has ids of its own for them, above those of the others"""


@contextmanager
def serving(
    folder: Path | None = None,
    slots: int = SLOTS,
    *,
    retention: Mapping[str, object] | None = None,
    audit: Mapping[str, object] | None = None,
    **joblet: object,
) -> Iterator[Server]:
    """A server with so many slots, its state in a new directory (below `folder`), and this in its sections."""
    with tempfile.TemporaryDirectory(prefix="joblet-bench-", dir=folder) as directory:
        place = Path(directory)
        certificates = place / "certs"
        certificates.mkdir()
        isolation: dict[str, object] = {"idBase": (ID_BASE or 0x10000000) + (sum(_OPEN) << 16), "idRanges": slots}
        sections: dict[str, dict[str, object]] = {
            "joblet": {"maxConcurrentJobs": slots, **joblet},
            "isolation": isolation,
            "retention": dict(retention or {}),
            "audit": dict(audit or {}),
        }
        server = Server(place, make_certificates(certificates), **sections)
        _OPEN.append(slots)
        server.start()
        try:
            yield server
        finally:
            server.close()
            _OPEN.pop()


@asynccontextmanager
async def connected(server: Server, port: int = 0) -> AsyncIterator[Client]:
    """A client of the server, or of another one with its certificates at this port, as admin."""
    folder = server.certificates
    config = ClientConfig.resolve(
        server=f"localhost:{port or server.port}",
        cert=str(folder / "admin-cert.pem"),
        key=str(folder / "admin-key.pem"),
        ca=str(folder / "ca-cert.pem"),
    )
    async with Client(replace(config, connect_timeout=PATIENCE, timeout=PATIENCE)) as client:
        yield client


async def in_flight(do: Callable[[], Awaitable[None]], count: int, workers: int) -> None:
    """Do it so often, by workers that begin again when they are done."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await do()

    await asyncio.gather(*(work() for _ in range(workers)))


async def run_clients(what: str, *arguments: object) -> dict[str, Any]:
    """What stock clients in a process of their own have measured (benchmarks.clients)."""
    command = [sys.executable, "-m", "benchmarks.clients", what, *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"clients ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def proportional_set_size(pid: int) -> int:
    """Bytes of memory of a process, what it shares divided among those who do (proc_pid_smaps(5), Pss)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


__all__ = ["connected", "cpu_seconds", "in_flight", "proportional_set_size", "run_clients", "serving"]

"""The escape suite: attempts to break out of a job, made as jobs of a running server by an ordinary client.

Each is refused in one exact way, or the suite fails. `joblet doctor --escape` runs it.
"""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console

from joblet.client import Client, ClientConfig, JobletError
from joblet.escape.render import show, summary
from joblet.escape.suite import run
from joblet.escape.verdict import Outcome, Result, Verdict, passed
from joblet.escape.victims import EscapeError, HostContext

__all__ = [
    "EscapeError", "HostContext", "Outcome", "Result", "Verdict", "main", "passed", "run", "show", "summary",
]  # fmt: skip


def main(client_config: ClientConfig, host: HostContext) -> int:
    """Run the suite and print it. The exit status: 0 when all holds, 1 for a breach, 2 when it could not be run."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    try:
        results = asyncio.run(_run(client_config, host, console))
    except (EscapeError, JobletError) as error:
        print(f"joblet: {error}", file=sys.stderr)
        return 2
    show(results, console)
    return 0 if passed(results) else 1


async def _run(client_config: ClientConfig, host: HostContext, console: Console) -> list[Result]:
    async with Client(client_config) as client:
        with console.status("Making attempts") as status:
            return await run(client, host, lambda result: status.update(f"{result.attempt.category}"))

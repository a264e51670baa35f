"""`rnx list --watch`: a list that is drawn again when something happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from joblet.client import Client, JobInfo

STYLES = {
    "COMPLETED": "green",
    "FAILED": "bold red",
    "STOPPED": "yellow",
    "RUNNING": "bold blue",
    "INITIALIZING": "blue",
    "SCHEDULED": "cyan",
}
_PAUSE = 0.25
"""seconds between two lists at least, however much happens"""


Read = Callable[[], Awaitable[Sequence["JobInfo"]]]


async def watch(client: Client, read: Read, line: Callable[[JobInfo], str]) -> None:
    """Draw what `read` gives, a `line` each, until the caller is cancelled."""
    with Live(auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            await _watch(client, read, lambda jobs: live.update(picture(live.console, jobs, line), refresh=True))


async def _watch(client: Client, read: Read, draw: Callable[[Sequence[JobInfo]], None]) -> None:
    """Until events are not kept any more that have not been seen."""
    from joblet.client import ConnectionFailed, DeadlineExceeded, OutOfRange, Unavailable

    # What is later than an event that is known before the jobs are listed is missed neither there nor here.
    known = await _latest_event(client)
    changed = asyncio.Event()
    changed.set()
    listening = asyncio.create_task(_listen(client, known, changed))
    listening.add_done_callback(lambda _: changed.set())
    try:
        while not listening.done():
            await changed.wait()
            changed.clear()
            try:
                draw(await read())
            except (ConnectionFailed, DeadlineExceeded, Unavailable):
                changed.set()  # the server is being restarted: for how long that may take the listener knows
            await asyncio.sleep(_PAUSE)
        await listening
    except OutOfRange:
        return
    finally:
        listening.cancel()


async def _listen(client: Client, after: int, changed: asyncio.Event) -> None:
    async with aclosing(client.events(after, reconnect=True)) as events:
        async for _ in events:
            changed.set()


async def _latest_event(client: Client) -> int:
    """Of the newest job, if there is one."""
    latest = 0
    for job in await client.list(limit=1):
        async with aclosing(client.events(job=job.id, follow=False)) as events:
            async for event in events:
                latest = event.sequence
    return latest


def picture(console: Console, jobs: Sequence[JobInfo], line: Callable[[JobInfo], str]) -> Group:
    """The last of the jobs, as many as the terminal is high, and how many there are."""
    room = max(1, console.height - 2)
    rows = []
    for job in jobs[-room:]:
        row = Text(line(job).removesuffix("\n"), no_wrap=True, overflow="ellipsis")
        if style := STYLES.get(job.status):
            row.highlight_words([job.status], style)
        rows.append(row)
    hidden = f" ({len(jobs) - len(rows)} above)" if len(rows) < len(jobs) else ""
    count = f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}"
    return Group(*rows, Text(f"{count}{hidden}; Ctrl-C ends the view", style="dim", no_wrap=True))

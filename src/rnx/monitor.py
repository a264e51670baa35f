"""`rnx monitor`: how the server and its host are, live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.jobs import seconds
from rnx.live import drawing, is_drawn, printing
from rnx.session import ServerCommand, with_client
from rnx.system_text import headings, is_restart, line, page, sample_json

if TYPE_CHECKING:
    from joblet.client import Client, SystemMetrics, SystemStatus

Show = Callable[["SystemStatus", "SystemMetrics", "SystemMetrics | None"], Awaitable[None]]


def monitor(
    ctx: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="Between two samples, in whole seconds: 1s to 1h (default: 2s).",
            show_default=False,
        ),
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one page, of two samples, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each sample as a JSON object with the field names of the API.")
    ] = False,
) -> None:
    """Show how the server and its host are: jobs, processors, memory, disk, network, streams and database.

    A restart of the server does not end it.
    """
    if interval != round(interval):
        raise typer.BadParameter(f"not whole seconds: {interval:g} s", param_hint="'--interval'")
    drawn = is_drawn(as_json=as_json, once=once)
    alone = drawn or as_json
    """the first sample is to be seen at once"""

    async def call(client: Client) -> None:
        before: SystemMetrics | None = None
        async with AsyncExitStack() as stack:
            stream = client.system_metrics(interval=round(interval), reconnect=True)
            samples = await stack.enter_async_context(aclosing(stream))
            status = await client.system_status()
            show = _drawing(stack) if drawn else await _printing(stack, as_json=as_json, once=once)
            async for sample in samples:
                if before is not None and is_restart(sample, before):
                    before, status = None, await client.system_status()
                if before is not None or alone:
                    await show(status, sample, before)
                    if once:
                        break
                before = sample

    with_client(ctx, call)


def _drawing(stack: AsyncExitStack) -> Show:
    from rnx.monitor_screen import Screen

    return drawing(stack.enter_context(Screen()).draw)


async def _printing(stack: AsyncExitStack, *, as_json: bool, once: bool) -> Show:
    if as_json:
        return await printing(stack, lambda status, sample, _: sample_json(status, sample))
    if once:
        return await printing(stack, page)
    return await printing(stack, lambda _, sample, before: line(sample, before), headings())


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(monitor)

"""`rnx top`: what running jobs use, live."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import Failure
from rnx.jobs import seconds
from rnx.live import drawing, is_drawn, printing
from rnx.session import ServerCommand, with_client
from rnx.usage_text import Line, Order, lines_of, sample_json, stream_headings, stream_text, table

if TYPE_CHECKING:
    from joblet.client import Client, UsageSample

Show = Callable[["UsageSample", list[Line]], Awaitable[None]]


def top(
    ctx: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB-ID", show_default=False)] = None,
    interval: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="Between two samples: 200ms to 1m (default: 1s).",
            show_default=False,
        ),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table, of two samples, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each sample as a JSON object with the field names of the API.")
    ] = False,
    order: Annotated[
        Order, typer.Option("--sort", help="What uses most of this first, or by id.", show_default=False)
    ] = Order.CPU,
) -> None:
    """Show what running jobs use of CPU, memory and disks beside their limits: all, or these until they have ended.

    A restart of the server does not end it.
    """
    drawn = is_drawn(as_json=as_json, once=once)

    async def call(client: Client) -> None:
        shown = False
        async with AsyncExitStack() as stack:
            stream = client.usage(job_ids or [], interval=interval, reconnect=True)
            samples = await stack.enter_async_context(aclosing(stream))
            show = _drawing(stack) if drawn else await _printing(stack, as_json=as_json, once=once)
            async for sample, before in _pairs(samples, alone=drawn):
                lines = lines_of(sample, before, order)
                shown = shown or bool(lines)
                await show(sample, lines)
                if once:
                    break
        if job_ids and not shown:
            raise Failure(f"no such job runs: {' '.join(job_ids)} (for what an ended one has used: rnx status -v)")

    with_client(ctx, call)


async def _pairs(
    samples: AsyncGenerator[UsageSample], *, alone: bool
) -> AsyncGenerator[tuple[UsageSample, UsageSample | None]]:
    """Samples, each with the one before it: it takes two to tell how fast.

    The first stands `alone` if it is to be seen at once, or if there is no other.
    """
    before: UsageSample | None = None
    given = False
    async for sample in samples:
        if before is not None or alone:
            given = True
            yield sample, before
        before = sample
    if before is not None and not given:
        yield before, None


def _drawing(stack: AsyncExitStack) -> Show:
    from rnx.top_screen import Screen

    screen = stack.enter_context(Screen())
    return drawing(lambda _, lines: screen.draw(lines))


async def _printing(stack: AsyncExitStack, *, as_json: bool, once: bool) -> Show:
    text = sample_json if as_json else table if once else stream_text
    return await printing(stack, text, stream_headings() if text is stream_text else "")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(top)

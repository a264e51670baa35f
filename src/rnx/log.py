"""`rnx log`: a job's output, byte for byte, to stdout."""

from __future__ import annotations

import re
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rnx import render
from rnx.jobs import JobId, seconds
from rnx.output import Output
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from joblet.client import Client

_FOLLOW_VALUE = re.compile(r"(?:--follow|-f)=(.*)")
_TRUE = {"true", "t", "1", "yes"}
_FALSE = {"false", "f", "0", "no"}


class LogCommand(ServerCommand):
    """Understands `--follow=false`, which a flag without a value would refuse."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--follow=VALUE` as `--follow` or `--no-follow`."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*(_plain_flag(arg) for arg in args[:end]), *args[end:]])


def log(
    ctx: typer.Context,
    job_id: JobId,
    follow: Annotated[
        bool,
        typer.Option("--follow/--no-follow", "-f", help="Follow the log stream; --follow=false prints what is there."),
    ] = True,
    reconnect: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="How long to try to reach a server again that has gone (default: 1m; 0s is not at all).",
            show_default=False,
        ),
    ] = 60.0,
) -> None:
    """Stream job output in real time, or view historical logs. Ctrl-C ends the view, not the job.

    A restart of the server does not end it: it goes on where it was.
    """

    async def call(client: Client) -> None:
        await client.status(job_id)  # what cannot be followed gets an error, not a header
        chunks = cast("AsyncGenerator[bytes]", client.logs(job_id, follow=follow, reconnect=True))
        async with Output(sys.stdout.fileno()) as output, aclosing(chunks):
            await output.write(render.log_header(job_id).encode())
            async for chunk in chunks:
                await output.write(chunk)

    with_client(ctx, call, patience=reconnect)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=LogCommand)(log)


def _plain_flag(arg: str) -> str:
    match = _FOLLOW_VALUE.fullmatch(arg)
    if not match:
        return arg
    value = match[1].lower()
    if value in _TRUE:
        return "--follow"
    if value in _FALSE:
        return "--no-follow"
    raise typer.BadParameter(f"{match[1]!r} is neither true nor false", param_hint="--follow")

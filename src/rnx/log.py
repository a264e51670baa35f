"""`rnx log`: a job's output, or part of it, byte for byte or with times, to stdout."""

from __future__ import annotations

import re
import sys
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from joblet.clock import parse_duration
from joblet.command_line import Failure
from rnx import render
from rnx.jobs import JobId, Reconnect
from rnx.output import Output, write_streams
from rnx.session import ServerCommand, with_client
from rnx.stamps import Stamper

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from joblet.client import Client, LogChunk

_FOLLOW_VALUE = re.compile(r"(?:--follow|-f)=(.*)")
_TRUE = {"true", "t", "1", "yes"}
_FALSE = {"false", "f", "0", "no"}


class _Part(TypedDict):
    """Which part of a log; as arguments of Client.logs."""

    follow: bool
    reconnect: bool
    tail: int | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None
    grep: str
    stream: str


def when(text: str) -> datetime | timedelta:
    """An instant, or how long ago, of the command line; for the parser of an option."""
    with suppress(ValueError, OverflowError):
        return timedelta(seconds=parse_duration(text))
    with suppress(ValueError):
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant
    raise typer.BadParameter(
        f'neither a duration nor a time: "{text}" (write for example "10m" or "2024-01-15T10:30:00Z")'
    )


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
    reconnect: Reconnect = 60.0,
    tail: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Begin with the last N lines.", show_default=False)
    ] = None,
    since: Annotated[
        Any,
        typer.Option(
            parser=when,
            metavar="TIME",
            help="Begin with what came at this time: 10m is ten minutes ago, 2024-01-15T10:30:00Z an instant.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        Any,
        typer.Option(
            parser=when, metavar="TIME", help="End before what came at this time; do not follow.", show_default=False
        ),
    ] = None,
    grep: Annotated[
        str,
        typer.Option(
            metavar="REGEX", help="Print only lines that match; the server looks for them.", show_default=False
        ),
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Print in front of each line when it came.")
    ] = False,
    only_stdout: Annotated[
        bool, typer.Option("--stdout", help="Only what a job of `rnx run --separate` wrote to its stdout.")
    ] = False,
    only_stderr: Annotated[bool, typer.Option("--stderr", help="Only what it wrote to its stderr.")] = False,
    separate: Annotated[
        bool, typer.Option("--separate", help="Print its stdout to stdout and its stderr to stderr.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print no header line, only what the job wrote.")] = False,
) -> None:
    """Stream job output in real time, or view historical logs. Ctrl-C ends the view, not the job.

    A restart of the server does not end it: it goes on where it was.
    """
    if only_stdout + only_stderr + separate > 1:
        ctx.fail("give one of --stdout, --stderr and --separate")

    async def call(client: Client) -> None:
        job = await client.status(job_id)  # what cannot be followed gets an error, not a header
        stream = "stdout" if only_stdout else "stderr" if only_stderr else "both" if separate else ""
        if stream and not job.separate_streams:
            raise Failure(f"job {job_id} has stdout and stderr merged: they are kept apart by rnx run --separate only")
        part: _Part = {
            "follow": follow,
            "reconnect": True,
            "tail": tail,
            "since": since,
            "until": until,
            "grep": grep,
            "stream": stream,
        }
        header = b"" if raw else render.log_header(job_id).encode()
        if separate:
            await write_streams(_both(client.log_chunks(job_id, **part), timestamps=timestamps), header)
            return
        chunks = _stamped(client.log_chunks(job_id, **part)) if timestamps else client.logs(job_id, **part)
        async with Output(sys.stdout.fileno()) as output, aclosing(chunks):
            await output.write(header)
            async for chunk in chunks:
                await output.write(chunk)

    with_client(ctx, call, patience=reconnect)


async def _stamped(source: AsyncGenerator[LogChunk]) -> AsyncGenerator[bytes]:
    stamper = Stamper()
    async with aclosing(source) as chunks:
        async for chunk in chunks:
            yield stamper.feed(chunk.payload, chunk.times)


async def _both(source: AsyncGenerator[LogChunk], *, timestamps: bool) -> AsyncGenerator[tuple[bool, bytes]]:
    """Whether it is of stderr, and the bytes."""
    stampers = {True: Stamper(), False: Stamper()}
    async with aclosing(source) as chunks:
        async for chunk in chunks:
            errors = chunk.stream == "stderr"
            payload = stampers[errors].feed(chunk.payload, chunk.times) if timestamps else chunk.payload
            yield errors, payload


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

"""`rnx log`: a job's output, byte for byte, to stdout."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import typer

from joblet.command_line import output_error
from rnx import render
from rnx.jobs import JobId, seconds
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from joblet.client import Client

_FOLLOW_VALUE = re.compile(r"(?:--follow|-f)=(.*)")
_LIMIT = 2**20
"""bytes that wait for stdout before the stream has to"""

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
        async with _Output(sys.stdout.fileno()) as output, aclosing(chunks):
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


class _Output:
    """A descriptor written from a thread, with at most _LIMIT bytes (and a chunk) waiting.

    A reader that stalls then stops neither the event loop (keepalive, Ctrl-C) nor the process's exit: the thread is a
    daemon and holds no lock of sys.stdout. A reader that leaves ends the block, even while the job is silent.

    The count of unwritten bytes belongs to the loop; the thread reports to it and touches only the queue.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: SimpleQueue[bytes] = SimpleQueue()
        self._unwritten = 0
        self._progress = asyncio.Event()
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        threading.Thread(target=self._write_all, name="output", daemon=True).start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not asyncio.CancelledError:
                await self._until(0)
        finally:
            if self._error is not None:
                raise self._error from None

    async def write(self, data: bytes) -> None:
        """Hand `data` over; return when there is room for more. The block ends in OutputClosed or Failure."""
        self._unwritten += len(data)
        self._pieces.put(data)
        await self._until(_LIMIT)

    async def _until(self, most: int) -> None:
        while self._unwritten > most:
            self._progress.clear()
            await self._progress.wait()

    def _write_all(self) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while True:
                pieces = [self._pieces.get()]
                pieces += [self._pieces.get() for _ in range(self._pieces.qsize())]
                rest = memoryview(b"".join(pieces))
                size = len(rest)
                try:
                    while rest:
                        rest = rest[os.write(self._descriptor, rest) :]
                except OSError as error:
                    self._loop.call_soon_threadsafe(self._fail, output_error(error))
                    return
                self._loop.call_soon_threadsafe(self._advance, size)

    def _advance(self, size: int) -> None:
        self._unwritten -= size
        self._progress.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._task is not None:
            self._task.cancel()

"""A client at a running job: its output comes, its input is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from grpclib.const import Cardinality

from joblet.client.errors import FailedPrecondition
from joblet.client.jobs import JobInfo, Terminal, terminal_message
from joblet.proto import joblet as pb

if TYPE_CHECKING:
    from joblet.client.client import Client

_ROUTE = "/joblet.SessionService/SendJobInput"
_MESSAGE = 64 << 10
"""bytes of content"""
_CALL = 1 << 20
"""bytes after which the server is asked how many the job has taken: of no more than that it can be unknown"""


class Session:
    """One job, to be used in `async with`: `async for` gives its output, to its end, and `write` sends to its input.

    Leaving the block waits until what was written has been taken, unless by an exception, and frees both streams; the
    job goes on. Reading and writing may be done by tasks of their own.
    """

    def __init__(
        self, client: Client, job_id: str, open_output: Callable[[], Awaitable[AsyncGenerator[bytes]]], *, stdin: bool
    ) -> None:
        """`open_output` gives the job's output, from a place that is known then; see Client.attach."""
        self.job_id = job_id
        self.job: JobInfo
        """as of the start of the session"""
        self.sent = 0
        """bytes that were written"""
        self.taken = 0
        """bytes that the job's input is known to have taken; exact after `flush` and `end`"""
        self._client = client
        self.stdin = stdin
        """whether it can send"""
        self._open_output = open_output
        self._output: AsyncGenerator[bytes]
        self._call: _InputCall | None = None
        self._order = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Look at the job. Raises NotFound, or FailedPrecondition when it takes no input."""
        self.job = await self._client.status(self.job_id)
        if self.stdin and not self.job.stdin:
            raise FailedPrecondition(f"job takes no input: {self.job_id} (it was not run with stdin or a terminal)")
        self._output = await self._open_output()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            if self._call is not None:
                await self._call.abort()
                self._call = None
            with suppress(RuntimeError):  # another task is reading, and ends with its own cancellation
                await self._output.aclose()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The job's output from the place that `attach` was told."""
        return self._output

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the job does not read.

        Raises FailedPrecondition when nobody reads its input any more, and ConnectionLost; in both cases perhaps only
        with a later call or when the block is left. Of `sent` bytes at least `taken` were taken then, and the next
        write is a new call.
        """
        rest = memoryview(data)
        async with self._order:
            while rest:
                piece, rest = bytes(rest[:_MESSAGE]), rest[_MESSAGE:]
                await self._send(pb.JobInput(content=piece))
                self.sent += len(piece)

    async def resize(self, rows: int, columns: int) -> None:
        """Give the job's terminal another size, in characters. Raises as `write` does, and InvalidArgument."""
        size = terminal_message(Terminal(rows, columns))
        async with self._order:
            await self._send(pb.JobInput(size=size))

    async def end(self) -> None:
        """Let the job meet the end of its input, and wait until it has taken all. Raises as `write` does."""
        async with self._order:
            await self._send(pb.JobInput(end=True))
            await self._finish()

    async def flush(self) -> None:
        """Wait until the job's input has taken what was written, or nobody reads it any more. Raises ConnectionLost."""
        async with self._order:
            await self._finish()

    async def _send(self, message: pb.JobInput) -> None:
        if not self.stdin:
            raise RuntimeError("attached without stdin")
        if self._call is not None and self._call.sent >= _CALL:
            await self._finish()
        if self._call is None:
            self._call = _InputCall(self._client, self.job_id)
        try:
            await self._call.send(message)
        except Exception:
            await self._drop()
            raise
        if self._call.over:
            await self._drop()
            raise FailedPrecondition(f"the input of job {self.job_id} has ended")

    async def _finish(self) -> None:
        if self._call is not None:
            try:
                await self._call.finish()
            finally:
                await self._drop()

    async def _drop(self) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            await call.abort()
            self.taken += call.taken


class _InputCall:
    """One call of SendJobInput. The mutable state is how far it has come."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.sent = 0
        self.taken = 0
        self.over = False
        """the server has answered before the call's end: nobody reads the job's input any more"""
        self._client = client
        self._first: pb.JobInput | None = pb.JobInput(id=job_id)
        self._ended = False
        self._stream: Any = None
        self._open = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def send(self, message: pb.JobInput) -> None:
        """Send a message, or raise what has ended the call."""
        await self._race(self._open.wait())
        if self._first is not None:
            message.id, self._first = self._first.id, None
        if not self.over:
            await self._race(self._stream.send_message(message))
            self.sent += len(message.content)

    async def finish(self) -> None:
        """End the call, and learn what was taken."""
        await self._race(self._open.wait())
        if not self.over:
            await self._race(self._end())
            await self._task

    async def _end(self) -> None:
        await self._stream.end()
        self._ended = True

    async def abort(self) -> None:
        """Let go of it at once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _race(self, step: Any) -> None:
        """Wait for a step of this side, or for the end of the call, which it may be waiting for in vain."""
        stepping = asyncio.ensure_future(step)
        try:
            await asyncio.wait({stepping, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not stepping.done():
                stepping.cancel()
            await asyncio.gather(stepping, return_exceptions=True)
        failed = not stepping.cancelled() and stepping.exception() is not None
        if self._task.done() or failed:
            await self._task

    async def _run(self) -> None:
        client = self._client
        try:
            with client._errors():
                request = client._open_channel.request(_ROUTE, Cardinality.STREAM_UNARY, pb.JobInput, pb.JobInputRes)
                async with request as stream:
                    await stream.send_request()
                    self._stream = stream
                    self._open.set()
                    answer = await stream.recv_message()
                    self.taken = answer.bytes if answer is not None else 0
                    if not self._ended:
                        raise _AnsweredEarly
        except _AnsweredEarly:
            self.over = True


class _AnsweredEarly(Exception):
    """The server wants no more."""

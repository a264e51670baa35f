"""The part of the client that is about other commands in running jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import StreamClosedError

from joblet.client._calls import Calls, check_text, settle_cancellation
from joblet.client.errors import OutputTooLong
from joblet.client.jobs import Terminal, terminal_message
from joblet.proto import joblet as pb

if TYPE_CHECKING:
    from grpclib.client import Stream

_METHOD = "/joblet.SessionService/ExecInJob"
_PIECE = 256 << 10
"""bytes of input that one message holds"""
MOST_OUTPUT = 16 << 20
"""bytes that `exec_output` takes of a command, if it is not told otherwise"""


class ExecChunk(NamedTuple):
    """A piece of what a command in a job has written."""

    stream: str
    """`stdout` or `stderr`; with a terminal always the first"""
    payload: bytes


class ExecOutput(NamedTuple):
    """How a command in a job has ended, and what it has written."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ExecSession:
    """A command in a running job, to be used in `async with`, at whose end it is ended if it has not.

    Iterate over it for what it writes. Reading and writing may go on side by side, in a task each.
    """

    reason = ""
    """why it has ended so, once it has"""

    def __init__(self, calls: Calls, request: pb.ExecInput) -> None:
        self._calls = calls
        self._request = request
        self._stack = AsyncExitStack()
        self._stream: Stream[pb.ExecInput, pb.ExecOutput] | None = None
        self._exit_code: int | None = None
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Ask for it. Whether it can run is known with the first piece of its output, or its exit code."""
        with self._calls._errors():
            channel = self._calls._open_channel
            call = channel.request(_METHOD, Cardinality.STREAM_STREAM, pb.ExecInput, pb.ExecOutput)
            self._stream = await self._stack.enter_async_context(call)
            await self._stream.send_message(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream = None
            given_up = asyncio.CancelledError()  # grpclib waits for nothing then, and resets what has not ended
            await self._stack.__aexit__(type(given_up), given_up, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ExecChunk:
        """The next piece of output; the end of iteration is its end."""
        while (message := await self._next()) is not None:
            if message.payload:
                return ExecChunk("stderr" if message.stream == pb.Stream.STDERR else "stdout", message.payload)
        raise StopAsyncIteration

    async def exit_code(self) -> int:
        """Its exit code, once it has ended; output that has not been read by then is lost.

        128 and the signal's number when it was killed, as it is with the job; 127 or 126 when it could not be run.
        """
        while await self._next() is not None:
            pass
        assert self._exit_code is not None
        return self._exit_code

    async def write(self, data: bytes) -> None:
        """Give it input, if it was asked for with `stdin`; returns when most of it is on its way."""
        for begin in range(0, len(data), _PIECE):
            await self._send(pb.ExecInput(content=data[begin : begin + _PIECE]))

    async def end(self) -> None:
        """Nothing more comes: its next read meets the end of its input."""
        await self._send(pb.ExecInput(end=True))

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now. Raises InvalidArgument for a size that no terminal has."""
        await self._send(pb.ExecInput(size=terminal_message(Terminal(rows, columns))))

    async def _send(self, message: pb.ExecInput) -> None:
        ended = asyncio.ensure_future(self._ended.wait())
        sending = asyncio.ensure_future(self._open.send_message(message))
        try:
            await asyncio.wait((sending, ended), return_when=asyncio.FIRST_COMPLETED)
            if not self._ended.is_set():
                with self._calls._errors(), suppress(StreamClosedError):  # the whole answer is here, and not read yet
                    await sending
        finally:
            for task in (sending, ended):
                task.cancel()
            await asyncio.gather(sending, ended, return_exceptions=True)

    async def _next(self) -> pb.ExecOutput | None:
        """The next message with output; None at the end."""
        if self._exit_code is not None:
            return None
        with self._calls._errors():
            try:
                message = await self._open.recv_message()
                if message is None:
                    raise StreamTerminatedError("no exit code")
            except StreamTerminatedError as error:
                settle_cancellation(error)
                self._stream = None
                # It raises what the server has answered, if it has.
                await self._stack.__aexit__(type(error), error, error.__traceback__)
                raise
        if message.exit_code is not None:
            self._exit_code, self.reason = message.exit_code, message.reason
            self._ended.set()
            return None
        return message

    @property
    def _open(self) -> Stream[pb.ExecInput, pb.ExecOutput]:
        if self._stream is None:
            raise RuntimeError("the session is not open: use `async with`")
        return self._stream


@asynccontextmanager
async def _writing(session: ExecSession, data: bytes) -> AsyncIterator[None]:
    """Give the session input while its output is read: who only writes could wait for one that only writes too."""

    async def write() -> None:
        await session.write(data)
        await session.end()

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class ExecCalls(Calls):
    """Run other commands in jobs that run."""

    def exec(
        self,
        job_id: str,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        stdin: bool = False,
        terminal: Terminal | None = None,
    ) -> ExecSession:
        """Run another command in a running job: with its view of files, processes and users, under its limits.

        It has the job's environment, and `environment` over that; it starts in `workdir` (below the work directory, or
        an absolute path), or where the job's command has. Without `stdin` its input is empty. With a `terminal` its
        input and output are one. It ends with the job, and with the session: use `async with`.

        Raises in the session FailedPrecondition when the job does not run, ResourceExhausted when too many do so.
        """
        environment = dict(environment or {})
        check_text("command", command, *args)
        check_text("workdir", workdir)
        check_text("environment", *environment, *environment.values(), secret=True)
        return ExecSession(
            self,
            pb.ExecInput(
                id=job_id,
                command=command,
                args=list(args),
                environment=environment,
                workdir=workdir,
                stdin=stdin,
                terminal=None if terminal is None else terminal_message(terminal),
            ),
        )

    async def exec_output(
        self,
        job_id: str,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        input: bytes = b"",
        most: int = MOST_OUTPUT,
    ) -> ExecOutput:
        """Run another command in a running job to its end; see `exec`.

        Raises OutputTooLong, and the command is ended, when it writes more than `most` bytes.
        """
        written = {"stdout": bytearray(), "stderr": bytearray()}
        session = self.exec(job_id, command, *args, environment=environment, workdir=workdir, stdin=bool(input))
        async with session, _writing(session, input):
            async for stream, payload in session:
                written[stream] += payload
                if sum(map(len, written.values())) > most:
                    raise OutputTooLong(f"{command} in job {job_id} has written more than {most} bytes")
            code = await session.exit_code()
        return ExecOutput(code, bytes(written["stdout"]), bytes(written["stderr"]))

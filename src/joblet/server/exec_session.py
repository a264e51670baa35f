"""ExecInJob: another command in a running job, and what passes between it and its client."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from joblet.command import Command, check
from joblet.errors import CannotExec, InvalidArgument, JobNotFound, JobNotRunning, ShuttingDown, TooManyCommands
from joblet.executor.base import STDOUT, Executor, JobGone, Session
from joblet.job import Job, State
from joblet.life import Live
from joblet.log import fields
from joblet.order import validate_size
from joblet.proto import joblet as pb
from joblet.runner import Runner
from joblet.server.auth import caller
from joblet.server.orders import terminal_of

log = logging.getLogger(__name__)

MOST_OF_JOB = 16
"""commands at a time in one job"""
MOST = 256
"""and in all of them: each takes up to five descriptors"""
_FIRST_SECONDS = 30.0
"""that a client has to say what is to run"""
_END_SECONDS = 3.0
"""that a job may take to be recorded as ended once nothing of it listens"""
_SHOWN = 200


class Commands:
    """Runs commands for calls. The mutable state is how many there are, those that are being ended, and the closing."""

    def __init__(self, runner: Runner, executor: Executor) -> None:
        self._runner = runner
        self._executor = executor
        self._running: Counter[int] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all calls and their commands."""
        self._closing.set()

    async def closed(self) -> None:
        """Wait until the commands of all calls that have ended are gone."""
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)

    async def run(self, messages: AsyncIterator[pb.ExecInput]) -> AsyncGenerator[pb.ExecOutput]:
        """The call, from its first message to the command's end. However it ends, so does the command."""
        first = await _first(messages)
        command = _command_of(first)
        check(command)
        live, job = await self._find(first.id)
        self._count(job)
        try:
            session = await self._start(live, job, command)
        except BaseException:
            self._uncount(job)
            raise
        feeding = asyncio.create_task(_feed(messages, first, session, command), name=f"exec-{job.id}")
        closing = asyncio.create_task(self._until_closing(session))
        try:
            async with aclosing(session.output()) as pieces:
                async for stream, payload in pieces:
                    yield pb.ExecOutput(
                        payload=payload, stream=pb.Stream.STDOUT if stream == STDOUT else pb.Stream.STDERR
                    )
            if self._closing.is_set():
                raise ShuttingDown
            if feeding.done() and not feeding.cancelled() and (error := feeding.exception()) is not None:
                raise error
            end = await session.wait()
            yield pb.ExecOutput(exit_code=end.code, reason=end.reason)
        finally:
            # The call's own task may be cancelled again at any time: what remains to be done has one of its own.
            ending = asyncio.create_task(self._finish(job, session, feeding, closing))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _find(self, job_id: str) -> tuple[Live, Job]:
        live = self._runner.find(job_id)
        if live is not None and live.job.state is State.INITIALIZING:
            await live.launched.wait()
        job = await self._runner.get(job_id)
        if live is None or job.state is not State.RUNNING:
            raise JobNotRunning(job.id, job.state)
        if job.paused_by:
            raise CannotExec(job.id, f"it is paused by {job.paused_by}")
        return live, job

    async def _start(self, live: Live, job: Job, command: Command) -> Session:
        who = caller.get().name
        try:
            session = await self._executor.exec(job, command)
        except JobGone:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await live.ended.wait()
                    raise JobNotRunning(job.id, live.job.state) from None
            raise CannotExec(job.id, "it was started by a joblet that could not do this yet") from None
        log.info(
            "command in job started",
            extra=fields(jobId=job.id, command=_shown(command), terminal=command.terminal is not None, by=who),
        )
        return session

    async def _until_closing(self, session: Session) -> None:
        await self._closing.wait()
        await session.end()

    async def _finish(
        self, job: Job, session: Session, feeding: asyncio.Task[None], closing: asyncio.Task[None]
    ) -> None:
        feeding.cancel()
        closing.cancel()
        await asyncio.gather(feeding, closing, return_exceptions=True)
        try:
            await session.close()
            end = await session.wait()
            log.info("command in job ended", extra=fields(jobId=job.id, exitCode=end.code, reason=end.reason))
        finally:
            self._uncount(job)

    def _count(self, job: Job) -> None:
        if self._closing.is_set():
            raise ShuttingDown
        if self._running[job.id] >= MOST_OF_JOB:
            raise TooManyCommands(MOST_OF_JOB, f"job {job.id}")
        if self._running.total() >= MOST:
            raise TooManyCommands(MOST, "all jobs")
        self._running[job.id] += 1

    def _uncount(self, job: Job) -> None:
        self._running[job.id] -= 1
        if not self._running[job.id]:
            del self._running[job.id]


async def _first(messages: AsyncIterator[pb.ExecInput]) -> pb.ExecInput:
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            return await anext(messages)
    except TimeoutError:
        raise InvalidArgument(f"no message within {_FIRST_SECONDS:.0f}s that says what is to run") from None
    except StopAsyncIteration:
        raise InvalidArgument("request holds no message") from None


def _command_of(message: pb.ExecInput) -> Command:
    if not message.id:
        raise JobNotFound(message.id)
    return Command(
        command=message.command,
        args=tuple(message.args),
        environment=dict(message.environment),
        workdir=message.workdir,
        stdin=message.stdin,
        terminal=terminal_of(message.terminal),
    )


async def _feed(messages: AsyncIterator[pb.ExecInput], first: pb.ExecInput, session: Session, command: Command) -> None:
    """Give the command what comes for it, as fast as it takes it; the end of the client's messages is that of input."""
    message: pb.ExecInput | None = first
    try:
        while message is not None:
            if (size := terminal_of(message.size)) is not None:
                validate_size(size.rows, size.columns)
                session.resize(size)
            if message.content:
                if not command.stdin:
                    raise InvalidArgument("content for a command that was asked for without stdin")
                await session.write(message.content)
            if message.end:
                await session.end_input()
            message = await anext(messages, None)
        if command.terminal is None:
            await session.end_input()
    except Exception:  # nobody would know that its input has holes
        await session.end()
        raise


def _shown(command: Command) -> str:
    line = shlex.join([command.command, *command.args])
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."

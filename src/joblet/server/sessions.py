"""SessionService: what passes between a client and a job while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from joblet.errors import InputEnded, InvalidArgument, JobNotRunning, JobTakesNoInput, ShuttingDown
from joblet.executor.base import Input, InputOver
from joblet.life import Live
from joblet.log import fields
from joblet.order import validate_size
from joblet.proto import joblet as pb
from joblet.runner import Runner, first_of
from joblet.server.auth import caller
from joblet.server.exec_session import Commands
from joblet.server.page import ClosedAtOnce

log = logging.getLogger(__name__)


class SessionService(ClosedAtOnce, pb.SessionServiceBase):
    """Input of jobs, and other commands in them. The mutable state is that the server is closing."""

    def __init__(self, runner: Runner, commands: Commands) -> None:
        self._runner = runner
        self._commands = commands
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the calls that wait, and the commands in jobs; what was sent to a job goes on for the next server."""
        self._closing.set()
        self._commands.close()

    async def closed(self) -> None:
        """Wait for what they have left to be done."""
        await self._commands.closed()

    async def exec_in_job(self, messages: AsyncIterator[pb.ExecInput]) -> AsyncGenerator[pb.ExecOutput]:
        async with aclosing(self._commands.run(messages)) as outputs:
            async for output in outputs:
                yield output

    async def send_job_input(self, messages: AsyncIterator[pb.JobInput]) -> pb.JobInputRes:
        """Answers early when the job ends, or nobody reads its input any more: with what it has taken until then."""
        first = await anext(messages, None)
        if first is None:
            raise InvalidArgument("request holds no message")
        live = await self._find(first.id)
        await first_of(live.launched, live.ended, self._closing)
        if self._closing.is_set():
            raise ShuttingDown
        try:
            feeder = await live.open_input()
        except InputOver:
            raise InputEnded(live.job.id) from None
        log.info("job input opened", extra=fields(jobId=live.job.id, by=caller.get().name))
        feeding = asyncio.create_task(_feed(feeder, first, messages))
        try:
            await first_of(live.ended, self._closing, _done(feeding))
            if feeding.done():
                feeding.result()
            elif not live.ended.is_set():
                raise ShuttingDown
        finally:
            feeding.cancel()
            try:
                await asyncio.wait([feeding])
            finally:  # this call may be cancelled once more
                feeder.close()
        return pb.JobInputRes(bytes=feeder.taken)

    async def _find(self, job_id: str) -> Live:
        live = self._runner.find(job_id)
        job = live.job if live is not None else await self._runner.get(job_id)
        if not job.stdin:
            raise JobTakesNoInput(job.id)
        if live is None:
            raise JobNotRunning(job.id, job.state)
        return live


def _done(task: asyncio.Task[None]) -> asyncio.Event:
    done = asyncio.Event()
    task.add_done_callback(lambda _: done.set())
    return done


async def _feed(feeder: Input, first: pb.JobInput, messages: AsyncIterator[pb.JobInput]) -> None:
    """Hand over what comes, to the end of the call or of the job's input. Raises InvalidArgument."""
    try:
        await _take(feeder, first)
        async for message in messages:
            await _take(feeder, message)
    except InputOver:
        return


async def _take(feeder: Input, message: pb.JobInput) -> None:
    if message.size is not None:
        validate_size(message.size.rows, message.size.columns)
        await feeder.resize(message.size.rows, message.size.columns)
    if message.content:
        await feeder.write(message.content)
    if message.end:
        await feeder.end()

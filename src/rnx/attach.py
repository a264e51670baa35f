"""`rnx attach`, and `rnx run -i` and `-t`: at a job's input and output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import closing, nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet.command_line import Failure, one_line
from rnx import terminal
from rnx.detach import DEFAULT, Detacher, keys_of
from rnx.input import Input
from rnx.jobs import JobId, Reconnect
from rnx.output import Output
from rnx.session import OWN_FAILURE, ServerCommand, with_client
from rnx.wait import ending, exit_status, tell

if TYPE_CHECKING:
    from joblet.client import Client, Job, JobInfo, Session

DetachKeys = Annotated[
    str,
    typer.Option(
        metavar="KEYS", help="Keys that leave the job's terminal while the job goes on, such as ctrl-],x; '' is none."
    ),
]
_TYPED_MOST = 64 << 10
"""bytes that wait for a job that does not read; what is typed after that is lost, as at any terminal"""
_FLUSH_SECONDS = 1.0
"""for what was typed before the keys to detach"""


def attach(
    ctx: typer.Context,
    job_id: JobId,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Only show what the job writes.")] = False,
    detach_keys: DetachKeys = DEFAULT,
    tail: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Begin with the last N lines (default: as many as the terminal is high).",
            show_default=False,
        ),
    ] = None,
    reconnect: Reconnect = 60.0,
) -> None:
    """Be at the input and output of a job that was run with -i or -t, as if it ran here.

    At a job's terminal each key goes to the job; ctrl-p,ctrl-q leaves it, and the job goes on. Exit status: the exit
    code of the job; 255 if it was stopped, 125 if joblet itself has failed, 0 after the keys to leave.
    """

    async def call(client: Client) -> None:
        keys = keys_of(detach_keys)
        lines = terminal.size()[0] if tail is None else tail
        await converse(client, job_id, keys, stdin=not no_stdin, tail=lines)

    with_client(ctx, call, patience=reconnect, failure=OWN_FAILURE)


async def accompany(job: Job, keys: str, *, stdin: bool) -> None:
    """As `converse`, with a job that was just run, whose id goes to stderr first."""
    tell(f"Job {one_line(job.id)} started\n")
    await converse(job.client, job.id, keys_of(keys), stdin=stdin)


async def converse(client: Client, job_id: str, keys: bytes, *, stdin: bool, tail: int | None = None) -> None:
    """Show a job's output, or the last lines of it and all that follow, and send it what comes from stdin, to its end.

    Raises typer.Exit with the status that says how the job has ended, or 0 once the keys to detach were typed; Failure
    when the server is lost before the input has been taken.
    """
    from joblet.client import ConnectionFailed, Unavailable

    session = client.attach(job_id, stdin=stdin, tail=tail, reconnect=True)
    detached = entered = False
    try:
        with suppress(_Left):
            async with session:
                entered = True
                detached = await _talk(session, keys, stdin=stdin, again=tail is not None)
                raise _Left
        ended = None if detached else (await client.wait(job_id))[0]
    except (ConnectionFailed, Unavailable, Failure, terminal.Ended, asyncio.CancelledError) as error:
        if entered:
            tell(f"The job goes on; {_ways_back(session)}\n")
        if isinstance(error, terminal.Ended):
            raise typer.Exit(128 + error.number) from None
        raise
    if ended is None:
        tell(f"\nDetached from job {one_line(job_id)}, which goes on; {_ways_back(session)}\n")
        raise typer.Exit(0)
    _tell_end(ended)
    raise typer.Exit(exit_status(ended))


class _Left(Exception):
    """Leaves the session without waiting for what is still on its way to the job."""


def _ways_back(session: Session) -> str:
    job_id = one_line(session.job_id)
    back = "attach" if session.stdin else "log"
    return f"to come back: rnx {back} {job_id}, to stop it: rnx stop {job_id}"


def _tell_end(job: JobInfo) -> None:
    if job.status != "COMPLETED":
        tell(ending(job))


async def _talk(session: Session, keys: bytes, *, stdin: bool, again: bool) -> bool:
    """To the end of the job; or True when the user has left it."""
    raw = stdin and session.job.terminal is not None and terminal.can_be_raw()
    async with terminal.raw() if raw else nullcontext() as resized:
        if resized is not None:
            typist = _Typist(session, keys)
            return await _together(
                _show(session), typist.read(), typist.send(), _follow_size(session, resized, again=again)
            )
        return await _together(_show(session), *([_pass_on(session)] if stdin else []))


async def _together(first: Coroutine[Any, Any, bool], *others: Coroutine[Any, Any, bool]) -> bool:
    """Run all, until the first has ended, or one gives True, or one fails."""
    tasks = [asyncio.create_task(each) for each in (first, *others)]
    waiting = set(tasks)
    try:
        while tasks[0] in waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(session: Session) -> bool:
    async with Output(sys.stdout.fileno()) as output:
        async for chunk in session:
            await output.write(chunk)
    return False


async def _pass_on(session: Session) -> bool:
    """Send what comes from stdin, and its end."""
    from joblet.client import ConnectionFailed, FailedPrecondition, Unavailable

    try:
        with closing(Input(0)) as source:
            while data := await source.read():
                await session.write(data)
        await session.end()
    except FailedPrecondition:  # it reads no more, like a pipe's reader that has left
        return False
    except (ConnectionFailed, Unavailable) as error:
        raise Failure(
            f"{error}; of {session.sent} bytes of input that were sent at least {session.taken} were taken"
        ) from error
    return False


async def _follow_size(session: Session, resized: asyncio.Event, *, again: bool) -> bool:
    """Tell the job's terminal the size of the user's. Who comes `again` has it drawn anew: by another size before."""
    rows, columns = terminal.size()
    if again:
        await _as_far_as_it_goes(session.resize(rows + 1 if rows < 65535 else rows - 1, columns))
    while True:
        await _as_far_as_it_goes(session.resize(*terminal.size()))
        await resized.wait()
        resized.clear()


class _Typist:
    """What is typed at a raw terminal. The mutable state is what has yet to be sent.

    Reading and sending go on beside each other: leaving a job that does not read must be possible.
    """

    def __init__(self, session: Session, keys: bytes) -> None:
        self._session = session
        self._detacher = Detacher(keys)
        self._typed = bytearray()
        self._news = asyncio.Event()
        self._sent = asyncio.Event()

    async def read(self) -> bool:
        """True when the keys to detach were typed, or the terminal has gone."""
        with closing(Input(0)) as source:
            while not self._detacher.found and (data := await source.read()):
                self._typed += self._detacher.feed(data)[: max(0, _TYPED_MOST - len(self._typed))]
                self._sent.clear()
                self._news.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._sent.wait()
        return True

    async def send(self) -> bool:
        """Send it, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            data = bytes(self._typed)
            if data:
                await _as_far_as_it_goes(self._session.write(data))
                del self._typed[: len(data)]
            if self._detacher.found:
                await _as_far_as_it_goes(self._session.flush())
            if not self._news.is_set():
                self._sent.set()


async def _as_far_as_it_goes(sending: Coroutine[Any, Any, None]) -> None:
    """What is typed for a job that has ended, or while the server is away, is lost; the output tells of both."""
    from joblet.client import ConnectionFailed, FailedPrecondition, Unavailable

    try:
        await sending
    except FailedPrecondition:
        return
    except (ConnectionFailed, Unavailable) as error:
        tell(f"\r\n{one_line(str(error))}: what is typed is lost until the server is back\r\n")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(attach)

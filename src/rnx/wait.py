"""Waiting for jobs: `rnx wait`, `rnx run --wait` and `--follow`, and the exit status that they end with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import one_line, write
from rnx import render
from rnx.jobs import Json
from rnx.output import Output, write_streams
from rnx.session import OWN_FAILURE, ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, Job, JobInfo

STOPPED = 255
"""the exit status for a job that was stopped: its exit code -1, as a shell shows it"""


def exit_status(job: JobInfo) -> int:
    """The status of rnx that says how a job has ended: its exit code, or what no command has given."""
    if job.exit_code >= 0:
        return min(job.exit_code, STOPPED)
    return STOPPED if job.status == "STOPPED" else OWN_FAILURE


def ending(job: JobInfo) -> str:
    """How a job has ended, in a line: `Job 7 FAILED: exit code 3`."""
    return one_line(f"Job {job.id} {job.status}" + (f": {job.reason}" if job.reason else "")) + "\n"


def next_attempt(job: JobInfo) -> str:
    """Which attempt of a job it was that has ended, and which is the next, in a line."""
    return one_line(f"It was attempt {job.attempt} of {job.retries + 1}; the next is job {job.retried_by}") + "\n"


async def wait_for(job: Job, *, as_json: bool = False) -> None:
    """Wait for a job that was just run, and say how it has ended; of attempts before the last on stderr.

    Raises typer.Exit with its exit status.
    """
    last = job.id
    async with aclosing(job.attempts()) as attempts:
        while True:
            with _goes_on(last):
                ended = await anext(attempts)
            if not ended.retried_by:
                break
            tell(ending(ended) + next_attempt(ended))
            last = ended.retried_by
    write(render.status_json(ended) if as_json else ending(ended))
    raise typer.Exit(exit_status(ended))


async def follow(job: Job) -> None:
    """Write the output of a job that was just run, and nothing else, to stdout; its id and a bad end to stderr.

    Of one with separate streams its stderr goes to stderr, too. So too of the attempts that follow it.

    Raises typer.Exit with its exit status.
    """
    begins = f" is scheduled for {job.info.scheduled_time}" if job.info.status == "SCHEDULED" else " started"
    tell(one_line(f"Job {job.id}{begins}") + "\n")
    last = job.id
    while True:
        with _goes_on(last):
            ended = await _follow_one(job.client, last, separate=job.info.separate_streams)
        if ended.status != "COMPLETED":
            tell(ending(ended))
        if not ended.retried_by:
            raise typer.Exit(exit_status(ended))
        tell(next_attempt(ended))
        last = ended.retried_by


async def _follow_one(client: Client, job_id: str, *, separate: bool) -> JobInfo:
    if separate:
        await write_streams(_both(client, job_id))
    else:
        chunks = client.logs(job_id, reconnect=True)
        async with Output(sys.stdout.fileno()) as output, aclosing(chunks):
            async for chunk in chunks:
                await output.write(chunk)
    async with aclosing(client.attempts(job_id)) as attempts:
        return await anext(attempts)


async def _both(client: Client, job_id: str) -> AsyncGenerator[tuple[bool, bytes]]:
    async with aclosing(client.log_chunks(job_id, reconnect=True, stream="both")) as chunks:
        async for chunk in chunks:
            yield chunk.stream == "stderr", chunk.payload


def wait(
    ctx: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB-ID", show_default=False)],
    any_one: Annotated[bool, typer.Option("--any", help="Wait only until one of them has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Wait until jobs have ended, and print how.

    Exit status: the exit code of the job, or of the first that has not completed; 255 if it was stopped, 125 if joblet
    itself has failed.
    """

    async def call(client: Client) -> None:
        ended = await client.wait(job_ids, any=any_one)
        array = render.JsonArray(render.status_object)
        write(array.piece(ended) + array.end() if as_json else "".join(map(ending, ended)))
        raise typer.Exit(next((status for status in map(exit_status, ended) if status), 0))

    with_client(ctx, call, failure=OWN_FAILURE)


@contextmanager
def _goes_on(job_id: str) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        tell(f"The job goes on; to see it again: rnx log {job_id}, to stop it: rnx stop {job_id}\n")
        raise


def tell(text: str) -> None:
    """Write to stderr, at once."""
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(wait)

"""Waiting for jobs: `rnx wait`, `rnx run --wait` and `--follow`, and the exit status that they end with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import one_line, write
from rnx.output import Output
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


async def wait_for(job: Job) -> None:
    """Wait for a job that was just run, and say how it has ended. Raises typer.Exit with its exit status."""
    with _goes_on(job.id):
        ended = await job.wait()
    write(ending(ended))
    raise typer.Exit(exit_status(ended))


async def follow(job: Job) -> None:
    """Write the output of a job that was just run, and nothing else, to stdout; its id and a bad end to stderr.

    Raises typer.Exit with its exit status.
    """
    _tell(f"Job {one_line(job.id)} started\n")
    with _goes_on(job.id):
        chunks = job.logs(reconnect=True)
        async with Output(sys.stdout.fileno()) as output, aclosing(chunks):
            async for chunk in chunks:
                await output.write(chunk)
        ended = await job.wait()
    if ended.status != "COMPLETED":
        _tell(ending(ended))
    raise typer.Exit(exit_status(ended))


def wait(
    ctx: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB-ID", show_default=False)],
    any_one: Annotated[bool, typer.Option("--any", help="Wait only until one of them has ended.")] = False,
) -> None:
    """Wait until jobs have ended, and print how.

    Exit status: the exit code of the job, or of the first that has not completed; 255 if it was stopped, 125 if joblet
    itself has failed.
    """

    async def call(client: Client) -> None:
        ended = await client.wait(job_ids, any=any_one)
        write("".join(map(ending, ended)))
        raise typer.Exit(next((status for status in map(exit_status, ended) if status), 0))

    with_client(ctx, call, failure=OWN_FAILURE)


@contextmanager
def _goes_on(job_id: str) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        _tell(f"The job goes on; to see it again: rnx log {job_id}, to stop it: rnx stop {job_id}\n")
        raise


def _tell(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(wait)

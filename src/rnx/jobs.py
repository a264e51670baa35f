"""`rnx status`, `stop`, `timeout` and `delete`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from joblet.clock import parse_duration
from joblet.command_line import FAILURE, Failure, complain, write
from rnx import render, workflow_text
from rnx.session import ServerCommand, with_client
from rnx.template import Template

if TYPE_CHECKING:
    from joblet.client import Client

T = TypeVar("T")

JobId = Annotated[str, typer.Argument(metavar="JOB-ID", show_default=False)]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB-ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with the field names of the API.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="TEXT",
        help="Print this, with fields of --json in braces: '{id} {status}'.",
        show_default=False,
    ),
]


def seconds(text: str | float) -> float:
    """A duration of the command line; for the parser of an option, which gets the default too."""
    if isinstance(text, float):
        return text
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Reconnect = Annotated[
    float,
    typer.Option(
        parser=seconds,
        metavar="DURATION",
        help="How long to try to reach a server again that has gone (default: 1m; 0s is not at all).",
        show_default=False,
    ),
]


def status(
    ctx: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="JOB-ID", show_default=False)] = "",
    workflow: Annotated[
        str, typer.Option(metavar="ID", help="A workflow and its jobs, instead of one job.", show_default=False)
    ] = "",
    as_json: Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print reasons too, all limits, what the job has used, and outputs.")
    ] = False,
    template: Format = "",
) -> None:
    """Get detailed information about a job, or about a workflow and its jobs."""
    if not job_id and not workflow:
        ctx.fail("Missing argument 'JOB-ID', or --workflow=ID.")
    if job_id and workflow:
        ctx.fail("give either JOB-ID or --workflow=ID")
    if template and (workflow or as_json or verbose):
        ctx.fail("--format is of single jobs, and without --json and --verbose")
    shape = Template(template, render.STATUS_FIELDS | render.RECEIPT_FIELDS) if template else None

    async def call(client: Client) -> None:
        if workflow:
            whole = await client.workflow(workflow)
            write(workflow_text.status_json(whole) if as_json else workflow_text.status(whole, verbose=verbose))
            return
        job = await client.status(job_id)
        if shape is not None:
            write(shape.text(job, job.receipt))
            return
        write(render.status_json(job) if as_json else render.status(job, verbose=verbose))

    with_client(ctx, call)


def stop(
    ctx: typer.Context,
    job_ids: JobIds,
    signal: Annotated[
        str,
        typer.Option(metavar="NAME", help="The signal to begin with, such as INT (default: TERM).", show_default=False),
    ] = "",
    grace: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="How long it has until SIGKILL, such as 5s; 0s is at once (default: the server's cleanupTimeout).",
            show_default=False,
        ),
    ] = -1.0,
) -> None:
    """Stop running jobs: SIGTERM, or another signal, then SIGKILL. Again with less --grace: hasten that."""

    async def call(client: Client) -> None:
        wanted = None if grace < 0 else grace
        await _each(job_ids, lambda job_id: client.stop(job_id, signal, wanted), render.stopped)

    with_client(ctx, call)


def pause(ctx: typer.Context, job_ids: JobIds) -> None:
    """Keep running jobs from running, until `rnx resume`. Their status stays RUNNING, and their timeouts go on."""

    async def call(client: Client) -> None:
        await _each(job_ids, client.pause, lambda job: render.paused("Job paused", job))

    with_client(ctx, call)


def resume(ctx: typer.Context, job_ids: JobIds) -> None:
    """Let paused jobs go on."""

    async def call(client: Client) -> None:
        await _each(job_ids, client.resume, lambda job: render.paused("Job resumed", job))

    with_client(ctx, call)


async def _each(job_ids: Sequence[str], call: Callable[[str], Awaitable[T]], show: Callable[[T], str]) -> None:
    """Call for some jobs at the same time, and print in order. Raises typer.Exit when one could not be done."""
    import asyncio

    from joblet.client import CallError

    calls = [asyncio.ensure_future(call(job_id)) for job_id in dict.fromkeys(job_ids)]
    failed = False
    try:
        for each in calls:
            try:
                text = show(await each)
            except CallError as error:  # of this job; the next may do
                complain(str(error))
                failed = True
            else:
                write(text)
    finally:
        for each in calls:
            each.cancel()
    if failed:
        raise typer.Exit(FAILURE)


def timeout(
    ctx: typer.Context,
    job_id: JobId,
    duration: Annotated[
        float, typer.Argument(parser=seconds, metavar="DURATION", help="Such as 1h30m.", show_default=False)
    ],
) -> None:
    """Change how long a job may run, counted from its start; it may be longer than the server's jobTimeout."""

    async def call(client: Client) -> None:
        write(render.timeout_changed(await client.set_timeout(job_id, duration)))

    with_client(ctx, call)


def delete(
    ctx: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB-ID", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all jobs that have ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
) -> None:
    """Delete jobs that have ended, and their logs."""
    if bool(job_ids) == everything:
        raise typer.BadParameter("give either the ids of jobs or --all", ctx=ctx)
    if everything and not yes:
        _confirm("Delete all jobs that have ended, and their logs?")

    async def call(client: Client) -> None:
        if everything:
            write(render.all_deleted(*await client.delete_all()))
            return
        from joblet.client import CallError

        failed = False
        for job_id in job_ids or ():
            try:
                await client.delete(job_id)
            except CallError as error:  # of this job; the next may do
                complain(str(error))
                failed = True
            else:
                write(render.deleted(job_id))
        if failed:
            raise typer.Exit(FAILURE)

    with_client(ctx, call)


def _confirm(question: str) -> None:
    """Ask on the terminal. Raises Failure without one, and for any answer but yes."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure("there is no terminal to ask on: give --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing deleted")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(cls=ServerCommand)(status)
    app.command(cls=ServerCommand)(stop)
    app.command(cls=ServerCommand)(pause)
    app.command(cls=ServerCommand)(resume)
    app.command(cls=ServerCommand)(timeout)
    app.command(cls=ServerCommand)(delete)

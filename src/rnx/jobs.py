"""`rnx run`, `status`, `stop`, `timeout` and `delete`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.clock import parse_duration
from joblet.command_line import FAILURE, Failure, complain, write
from rnx import render
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client

JobId = Annotated[str, typer.Argument(metavar="JOB-ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with the field names of the API.")]


def seconds(text: str | float) -> float:
    """A duration of the command line; for the parser of an option, which gets the default too."""
    if isinstance(text, float):
        return text
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run(
    ctx: typer.Context,
    command: Annotated[str, typer.Argument(metavar="COMMAND", show_default=False)],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", show_default=False)] = None,
    max_cpu: Annotated[
        int, typer.Option(metavar="INT", help="Max CPU percentage (default: from config).", show_default=False)
    ] = 0,
    max_memory: Annotated[
        int, typer.Option(metavar="INT", help="Max memory in MB (default: from config).", show_default=False)
    ] = 0,
    max_iobps: Annotated[
        int, typer.Option(metavar="INT", help="Max I/O bytes per second (default: 0=unlimited).", show_default=False)
    ] = 0,
    cpu_cores: Annotated[
        str, typer.Option(metavar="LIST", help="CPU cores to run on, such as 0-3,5 (default: any).", show_default=False)
    ] = "",
    max_processes: Annotated[
        int, typer.Option(metavar="INT", help="Max processes and threads (default: from config).", show_default=False)
    ] = 0,
    max_open_files: Annotated[
        int, typer.Option(metavar="INT", help="Max open files of a process (default: from config).", show_default=False)
    ] = 0,
    max_disk: Annotated[
        int,
        typer.Option(metavar="INT", help="Max MB in the work directory (default: from config).", show_default=False),
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="How long the command may run, such as 1h30m (default: from config, which is also the most).",
            show_default=False,
        ),
    ] = 0.0,
    priority: Annotated[
        int,
        typer.Option(
            metavar="INT",
            help="Who waits for a slot goes before those of a lower priority, -1000 to 1000 (default: 0).",
            show_default=False,
        ),
    ] = 0,
    job_key: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Your own name for this order: whoever repeats it gets the same job, not a second one. It is repeated"
            " by itself when the connection is lost.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Create and start a new job. Flags come before COMMAND; all that follows it is the command's."""

    async def call(client: Client) -> None:
        job = await client.run(
            command,
            *(args or ()),
            max_cpu=max_cpu,
            max_memory=max_memory,
            max_iobps=max_iobps,
            cpu_cores=cpu_cores,
            max_processes=max_processes,
            max_open_files=max_open_files,
            max_disk=max_disk,
            run_timeout=timeout,
            priority=priority,
            key=job_key,
        )
        write(render.started(job.info))

    with_client(ctx, call)


def status(
    ctx: typer.Context,
    job_id: JobId,
    as_json: Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the reason, all limits and what the job has used too.")
    ] = False,
) -> None:
    """Get detailed information about a job."""

    async def call(client: Client) -> None:
        job = await client.status(job_id)
        write(render.status_json(job) if as_json else render.status(job, verbose=verbose))

    with_client(ctx, call)


def stop(ctx: typer.Context, job_id: JobId) -> None:
    """Stop a running job: SIGTERM, then SIGKILL."""

    async def call(client: Client) -> None:
        write(render.stopped(await client.stop(job_id)))

    with_client(ctx, call)


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
    app.command(cls=ServerCommand, context_settings={"allow_interspersed_args": False})(run)
    app.command(cls=ServerCommand)(status)
    app.command(cls=ServerCommand)(stop)
    app.command(cls=ServerCommand)(timeout)
    app.command(cls=ServerCommand)(delete)

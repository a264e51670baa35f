"""`rnx run`, `status`, `list` and `stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import write
from rnx import render
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client

JobId = Annotated[str, typer.Argument(metavar="JOB-ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with the field names of the API.")]


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


def list_jobs(ctx: typer.Context, as_json: Json = False) -> None:
    """List all jobs with their current status."""

    async def call(client: Client) -> None:
        jobs = await client.list()
        write(render.list_json(jobs) if as_json else render.listed(jobs))

    with_client(ctx, call)


def stop(ctx: typer.Context, job_id: JobId) -> None:
    """Stop a running job: SIGTERM, then SIGKILL."""

    async def call(client: Client) -> None:
        write(render.stopped(await client.stop(job_id)))

    with_client(ctx, call)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(cls=ServerCommand, context_settings={"allow_interspersed_args": False})(run)
    app.command(cls=ServerCommand)(status)
    app.command("list", cls=ServerCommand)(list_jobs)
    app.command(cls=ServerCommand)(stop)

"""`rnx list`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import write
from rnx import render
from rnx.jobs import Json
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, JobInfo

_BATCH = 1000
"""jobs written at a time"""


def list_jobs(
    ctx: typer.Context,
    as_json: Json = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="List the newest N (default: as many as one answer holds).", show_default=False
        ),
    ] = None,
    before: Annotated[
        str, typer.Option(metavar="JOB-ID", help="List only jobs older than this one.", show_default=False)
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="List all jobs, however many, newest first.")] = False,
) -> None:
    """List jobs with their current status: the newest that one answer holds, oldest of them first."""
    if everything and limit:
        raise typer.BadParameter("give either --limit or --all", ctx=ctx)

    async def call(client: Client) -> None:
        if everything:
            await _write_all(client, before, as_json)
            return
        jobs = await client.list(limit=limit or 0, before=before)
        write(render.list_json(jobs) if as_json else render.listed(jobs))
        if jobs.more and sys.stderr is not None:
            sys.stderr.write(render.more(jobs))

    with_client(ctx, call)


async def _write_all(client: Client, before: str, as_json: bool) -> None:
    """Every job, as it comes: a long history is never held as a whole."""
    output = render.JsonArray() if as_json else render.Lines()
    batch: list[JobInfo] = []
    async for job in client.list_all(before=before):
        batch.append(job)
        if len(batch) == _BATCH:
            write(output.piece(batch))
            batch.clear()
    write(output.piece(batch) + output.end())


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("list", cls=ServerCommand)(list_jobs)

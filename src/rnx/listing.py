"""`rnx list`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from joblet.command_line import write
from rnx import render, workflow_text
from rnx.jobs import Json
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client

_BATCH = 1000
"""jobs written at a time"""


class _Output(Protocol):
    """A list's text, in pieces."""

    def piece(self, things: Iterable[Any]) -> str: ...

    def end(self) -> str: ...


def list_jobs(
    ctx: typer.Context,
    as_json: Json = False,
    workflow: Annotated[bool, typer.Option("--workflow", help="List workflows instead of jobs.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="List the newest N (default: as many as one answer holds).", show_default=False
        ),
    ] = None,
    before: Annotated[
        str, typer.Option(metavar="ID", help="List only those older than this one.", show_default=False)
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="List all, however many, newest first.")] = False,
) -> None:
    """List jobs with their current status: the newest that one answer holds, oldest of them first."""
    if everything and limit:
        raise typer.BadParameter("give either --limit or --all", ctx=ctx)

    async def jobs(client: Client) -> None:
        if everything:
            await _write_all(client.list_all(before=before), render.JsonArray() if as_json else render.Lines())
            return
        jobs = await client.list(limit=limit or 0, before=before)
        write(render.list_json(jobs) if as_json else render.listed(jobs))
        if jobs.more and sys.stderr is not None:
            sys.stderr.write(render.more(jobs))

    async def workflows(client: Client) -> None:
        output = render.JsonArray(workflow_text.workflow_object) if as_json else workflow_text.Table()
        if everything:
            await _write_all(client.list_all_workflows(before=before), output)
            return
        workflows = await client.list_workflows(limit=limit or 0, before=before)
        write(output.piece(workflows) + output.end())
        if workflows.more and sys.stderr is not None:
            sys.stderr.write(workflow_text.more(workflows))

    with_client(ctx, workflows if workflow else jobs)


async def _write_all(things: AsyncIterator[Any], output: _Output) -> None:
    """Every one, as it comes: a long history is never held as a whole."""
    batch = []
    async for thing in things:
        batch.append(thing)
        if len(batch) == _BATCH:
            write(output.piece(batch))
            batch.clear()
    write(output.piece(batch) + output.end())


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("list", cls=ServerCommand)(list_jobs)

"""`rnx list`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from joblet.command_line import Failure, write
from rnx import render, workflow_text
from rnx.jobs import Format, Json
from rnx.selection import Selection
from rnx.session import ServerCommand, with_client
from rnx.template import Template

if TYPE_CHECKING:
    from joblet.client import Client, JobInfo, JobList

_BATCH = 1000
"""jobs written at a time"""
_MOST = 10_000
"""jobs held at a time, of those selected"""


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
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Only those of this status, or one of several: FAILED,STOPPED."),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="GLOB", help="Only those of such a name: 'nightly-*'.", show_default=False)
    ] = "",
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Only those started then or later: 2h ago, or a time.", show_default=False),
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="TIME", help="Only those started then or earlier.", show_default=False)
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Only those with this label; with several, those with all."),
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(metavar="ID", help="Only those that this recurring schedule has made.", show_default=False),
    ] = "",
    owner: Annotated[
        str, typer.Option(metavar="NAME", help="Only those that this client has ordered.", show_default=False)
    ] = "",
    sort: Annotated[
        str,
        typer.Option(metavar="FIELD", help="Sort by a field of --json; -FIELD: greatest first.", show_default=False),
    ] = "",
    template: Format = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="On a terminal: draw it again whenever something happens.")
    ] = False,
) -> None:
    """List jobs with their current status: the newest that one answer holds, oldest of them first."""
    if everything and limit:
        raise typer.BadParameter("give either --limit or --all", ctx=ctx)
    selection = Selection.of(status or (), name, since, until, sort, label or (), schedule, owner)
    if workflow and (not selection.takes_all or sort or template or watch):
        options = "--status, --name, --since, --until, --label, --schedule, --owner, --sort, --format and --watch"
        ctx.fail(f"{options} are of jobs, not of workflows")
    if everything and (sort or watch):
        ctx.fail(f"give either --all or {'--sort' if sort else '--watch'}")
    if as_json and (template or watch):
        ctx.fail(f"give either --json or {'--format' if template else '--watch'}")
    if watch and not (sys.stdout is not None and sys.stdout.isatty()):
        raise Failure("--watch needs a terminal; for programs: rnx workflow events --follow --json")
    line = Template(template, render.JOB_FIELDS).text if template else render.list_line

    async def jobs(client: Client) -> None:
        if everything:
            chosen = (job async for job in client.list_all(before=before) if selection.takes(job))
            await _write_all(chosen, render.JsonArray() if as_json else render.Lines(line))
            return
        if watch:
            from rnx.watch import watch as watching

            await watching(client, lambda: _read(client, selection, limit, before), line)
        jobs = await _read(client, selection, limit, before)
        write(render.list_json(jobs) if as_json else "".join(map(line, jobs)))
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


async def _read(client: Client, selection: Selection, limit: int | None, before: str) -> JobList:
    """The newest of those selected, in order. One answer's, or as many as it takes to find so many."""
    from joblet.client import JobList

    if selection.takes_all:
        page = await client.list(limit=limit or 0, before=before)
        return JobList(selection.sorted(page), more=page.more)
    most = limit or _MOST
    found: list[JobInfo] = []
    async for job in client.list_all(before=before):
        if selection.takes(job):
            if len(found) == most:
                return JobList(selection.sorted(reversed(found)), more=True)
            found.append(job)
    return JobList(selection.sorted(reversed(found)))


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

"""`rnx workflow`: check, watch, stop, try again and draw workflows."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import FAILURE, Failure, complain, write
from rnx import workflow_file, workflow_text
from rnx.plain import PlainGroup
from rnx.session import ServerCommand, with_client
from rnx.workflow_file import Parameters

if TYPE_CHECKING:
    from joblet.client import Client
    from rnx.graph import Graph

WorkflowId = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
File = Annotated[str, typer.Argument(metavar="FILE[:JOB]", show_default=False)]
Logs = Annotated[bool, typer.Option("--logs", help="Show what its jobs write, too.")]


class Form(StrEnum):
    """How a graph is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


group = typer.Typer(
    cls=PlainGroup,
    help="Check, watch, stop, try again and draw workflows.",
    rich_markup_mode=None,
    no_args_is_help=False,
)


@group.command(cls=ServerCommand)
def validate(file: File, parameters: Parameters = None) -> None:
    """Check a workflow's file, and that the files are there that it uploads. Needs no server."""
    path, job = workflow_file.locate(file)
    checked = workflow_file.read(path, job, workflow_file.assignments("--param", parameters))
    workflow_file.check_uploads(checked)
    count = len(checked.plan.steps)
    write(f"{path}: {count} {'job' if count == 1 else 'jobs'}, valid\n")


@group.command(cls=ServerCommand)
def follow(ctx: typer.Context, workflow_id: WorkflowId, logs: Logs = False) -> None:
    """Watch a workflow to its end. Ctrl-C ends only the view.

    Exit status: 0 if it has completed, 1 if it has failed, 3 if it was stopped or canceled.
    """

    async def call(client: Client) -> None:
        from rnx.follow import follow as watch

        await watch(client, workflow_id, logs=logs)

    with_client(ctx, call)


@group.command(cls=ServerCommand)
def stop(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Stop a workflow: nothing more is started, and what runs is stopped."""

    async def call(client: Client) -> None:
        write(workflow_text.state("stopped", await client.stop_workflow(workflow_id)))

    with_client(ctx, call)


@group.command(cls=ServerCommand)
def retry(ctx: typer.Context, workflow_id: WorkflowId) -> None:
    """Run again what failed, was stopped or canceled of an ended workflow, and all below it."""

    async def call(client: Client) -> None:
        write(workflow_text.state("tried again", await client.retry_workflow(workflow_id)))

    with_client(ctx, call)


@group.command(cls=ServerCommand)
def delete(
    ctx: typer.Context, workflow_ids: Annotated[list[str], typer.Argument(metavar="ID", show_default=False)]
) -> None:
    """Delete ended workflows, their jobs and logs."""

    async def call(client: Client) -> None:
        from joblet.client import CallError

        failed = False
        for workflow_id in workflow_ids:
            try:
                await client.delete_workflow(workflow_id)
            except CallError as error:  # of this one; the next may do
                complain(str(error))
                failed = True
            else:
                write(workflow_text.deleted(workflow_id))
        if failed:
            raise typer.Exit(FAILURE)

    with_client(ctx, call)


@group.command(cls=ServerCommand)
def graph(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|FILE", show_default=False)],
    form: Annotated[Form, typer.Option("--format", help="How to draw it.")] = Form.TEXT,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file.", show_default=False)] = None,
    parameters: Parameters = None,
) -> None:
    """Draw which job comes after which: of a workflow by its number, as it stands, or of a file."""
    values = workflow_file.assignments("--param", parameters)
    if not what.isdecimal() or Path(what).exists():
        from rnx.graph import of_file

        _draw(of_file(workflow_file.read(*workflow_file.locate(what), values)), form, output)
        return

    async def call(client: Client) -> None:
        from rnx.graph import of_status

        _draw(of_status(await client.workflow(what)), form, output)

    with_client(ctx, call)


def _draw(picture: Graph, form: Form, output: Path | None) -> None:
    from rnx.graph import mermaid, svg, text

    if form is Form.SVG:
        drawn = svg(picture)
    elif form is Form.MERMAID:
        drawn = mermaid(picture)
    else:
        on_terminal = output is None and sys.stdout is not None and sys.stdout.isatty()
        drawn = text(picture, shutil.get_terminal_size((100, 24)).columns if on_terminal else 100)
    if output is None:
        write(drawn)
        return
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {output}: {os.strerror(error.errno) if error.errno else error}") from None


@group.command(cls=ServerCommand)
def schema() -> None:
    """Print the JSON Schema of workflow files, for editors. Needs no server."""
    from joblet.workflow.schema import json_schema

    write(json.dumps(json_schema(), indent=2) + "\n")


@group.command(cls=ServerCommand)
def events(
    ctx: typer.Context,
    workflow: Annotated[
        str, typer.Option(metavar="ID", help="Only of this workflow and its jobs.", show_default=False)
    ] = "",
    after: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Only those later than the event of this number.", show_default=False),
    ] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as a JSON object on its line.")] = False,
) -> None:
    """Print what has happened to jobs and workflows, one line for each change of a status."""
    line = workflow_text.event_json if as_json else workflow_text.event_line

    async def call(client: Client) -> None:
        from rnx.output import Output

        stream = client.events(after, workflow=workflow, follow=follow, reconnect=follow)
        async with Output(sys.stdout.fileno()) as output, aclosing(stream) as changes:
            async for event in changes:
                await output.write(line(event).encode("utf-8", "backslashreplace"))

    with_client(ctx, call)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(group, name="workflow")

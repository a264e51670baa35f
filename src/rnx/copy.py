"""`rnx cp`: files out of a job's work directory, or of the directory that a workflow's jobs share."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import Failure, one_line
from rnx.output import Output
from rnx.progress import Bar
from rnx.session import ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, FileEntry


def cp(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="ID:PATH", help="PATH in the job's work directory; ID: is all.", show_default=False)
    ],
    local: Annotated[
        str,
        typer.Argument(
            metavar="LOCAL", help="A directory to put it into, a new name for it, or - for stdout.", show_default=False
        ),
    ],
    workflow: Annotated[
        bool, typer.Option("--workflow", help="ID is of a workflow: from the directory that its jobs share.")
    ] = False,
) -> None:
    """Copy a file, or a directory and all in it, from a job, while it runs or when it has ended."""
    job_id, colon, path = source.partition(":")
    if not colon or not job_id:
        ctx.fail(f"expected ID:PATH, not {source!r}")
    path = "/".join(part for part in path.split("/") if part not in ("", "."))

    async def call(client: Client) -> None:
        if local == "-":
            await _to_stdout(client, job_id, path, workflow)
            return
        with Bar("Copying", "Copied") as bar:
            copied = await client.download(job_id, path, Path(local), workflow=workflow, on_progress=bar.update)
        for skipped, why in copied.skipped:
            _tell(f"Left out: {skipped or '.'}: {why}")
        if (more := copied.left_out - len(copied.skipped)) > 0:
            _tell(f"Left out: {more} more")
        if copied.left_out and not copied.files and not copied.path.exists():
            raise Failure("nothing was copied")

    with_client(ctx, call)


async def _to_stdout(client: Client, job_id: str, path: str, workflow: bool) -> None:
    async with aclosing(client.read_files(job_id, path, workflow=workflow)) as entries:
        first = await anext(entries)
        _check_is_file(first, path)
        async with Output(sys.stdout.fileno()) as output:
            await output.write(first.content)
            async for entry in entries:
                await output.write(entry.content)


def _tell(line: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(one_line(line) + "\n")


def _check_is_file(entry: FileEntry, path: str) -> None:
    if entry.is_directory:
        raise Failure(f"{path or 'the work directory'} is a directory: give a directory to put it into, not -")
    if entry.target:
        raise Failure(f"{path} is a link to {entry.target}")
    if entry.skipped:
        raise Failure(f"{path}: {entry.skipped}")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(cp)

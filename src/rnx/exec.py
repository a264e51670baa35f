"""`rnx exec`: another command in a running job."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet.command_line import complain
from rnx import terminal, workflow_file
from rnx.input import Input
from rnx.jobs import JobId
from rnx.output import Output
from rnx.session import OWN_FAILURE, ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, ExecSession


def exec_(
    ctx: typer.Context,
    job_id: JobId,
    command: Annotated[str, typer.Argument(metavar="COMMAND", show_default=False)],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", show_default=False)] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Give it what comes on stdin; otherwise its input is empty.")
    ] = False,
    tty: Annotated[
        bool, typer.Option("--tty", "-t", help="Give it a terminal; with -i of the size and with the keys of this one.")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment variable; of NAME alone from $NAME."),
    ] = None,
    workdir: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where it starts: below /work, or an absolute path (default: where the job's command did).",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Run another command in a running job: with its files, processes and user, under its limits.

    It ends with the job, and with rnx. Flags come before JOB-ID. Exit status: the command's; 128 and the signal's
    number if it was killed, 127 or 126 if it could not be run, 125 if joblet itself has failed.
    """
    environment = workflow_file.assignments("--env", env)

    async def call(client: Client) -> None:
        raw = tty and interactive
        if raw:
            terminal.check_raw()
        async with client.exec(
            job_id,
            command,
            *(args or ()),
            environment=environment,
            workdir=workdir,
            stdin=interactive,
            terminal=terminal.described() if tty else None,
        ) as session:
            try:
                async with terminal.raw() if raw else nullcontext() as resized:
                    code = await _relay(session, interactive=interactive, resized=resized)
            except terminal.Ended as error:
                raise typer.Exit(128 + error.number) from None
        if session.reason != f"exit code {code}":
            complain(session.reason)
        raise typer.Exit(code)

    with_client(ctx, call, failure=OWN_FAILURE)


async def _relay(session: ExecSession, *, interactive: bool, resized: asyncio.Event | None) -> int:
    """Pass on what it writes and what is written to it, until it has ended: its exit code."""
    beside: list[Coroutine[Any, Any, None]] = []
    if interactive:
        beside.append(_feed(session))
    if resized is not None:
        beside.append(_resize(session, resized))
    async with (
        _side_by_side(beside),
        Output(sys.stdout.fileno()) as out,
        Output(sys.stderr.fileno()) as err,
    ):
        async for stream, payload in session:
            await (err if stream == "stderr" else out).write(payload)
        return await session.exit_code()


async def _feed(session: ExecSession) -> None:
    source = Input(0)
    while piece := await source.read():
        await session.write(piece)
    await session.end()


async def _resize(session: ExecSession, resized: asyncio.Event) -> None:
    while await resized.wait():
        resized.clear()
        await session.resize(*terminal.size())


@asynccontextmanager
async def _side_by_side(calls: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """What keeps them from going on, whoever reads the session learns too."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("exec", cls=ServerCommand, context_settings={"allow_interspersed_args": False})(exec_)

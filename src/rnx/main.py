"""The `rnx` command: run and watch jobs on a joblet server."""

from __future__ import annotations

from typing import Annotated

import typer

from joblet import __version__, command_line
from rnx import attach, completion, copy, exec, jobs, listing, log, nodes, run, session, top, wait, why, workflow


class _Program(command_line.Group):
    examples = "rnx.examples"


app = typer.Typer(
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run commands as isolated jobs on a Linux server, from any platform.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def flags(
    server: session.Server = None,
    cert: session.Cert = None,
    key: session.Key = None,
    ca: session.Ca = None,
    config: session.Config = None,
    node: session.Node = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """The global flags; session.with_client reads them from the context."""


run.register(app)
attach.register(app)
jobs.register(app)
listing.register(app)
log.register(app)
exec.register(app)
copy.register(app)
wait.register(app)
top.register(app)
why.register(app)
workflow.register(app)
nodes.register(app)
completion.register(app)


@app.command(cls=command_line.Command)
def version() -> None:
    """Show the version."""
    command_line.write(f"rnx {__version__}\n")


def main() -> None:
    """Entry point."""
    command_line.run(app, "rnx")

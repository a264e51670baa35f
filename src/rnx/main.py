"""The `rnx` command: run and watch jobs on a joblet server."""

from __future__ import annotations

from typing import Annotated

import typer

from joblet import __version__, command_line
from rnx import session
from rnx.plain import PlainCommand
from rnx.program import Program

app = typer.Typer(
    cls=Program,
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


@app.command(cls=PlainCommand)
def version() -> None:
    """Show the version."""
    command_line.write(f"rnx {__version__}\n")


def main() -> None:
    """Entry point."""
    command_line.run(app, "rnx")

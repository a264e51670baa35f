"""The `joblet` command: the server and what its operator needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from joblet import __version__, certs_cli, command_line

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run commands on this Linux host as isolated jobs, for clients over mutual TLS.",
)
app.add_typer(certs_cli.app, name="certs")


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def version() -> None:
    """Show the version."""
    command_line.write(f"joblet {__version__}\n")


@app.command()
def serve(
    config: Annotated[Path, typer.Option("--config", help="The configuration file.")] = Path(
        "/opt/joblet/joblet-config.yml"
    ),
) -> None:
    """Serve in the foreground until SIGTERM or SIGINT. Jobs outlive the server."""
    if sys.platform != "linux":
        raise command_line.Failure(f"job execution requires Linux server (current: {sys.platform})")
    from joblet.server import app as server

    raise typer.Exit(server.serve(config))


def main() -> None:
    """Entry point: one line on stderr and a status for every error, never a traceback."""
    command_line.run(app, "joblet")

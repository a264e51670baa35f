"""The `joblet` command: the server and what its operator needs."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from joblet import __version__, audit_cli, certs_cli, command_line, install_cli


class _Program(command_line.Group):
    examples = "joblet.examples"


app = typer.Typer(
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run commands on this Linux host as isolated jobs, for clients over mutual TLS.",
)
app.add_typer(certs_cli.app, name="certs")
app.add_typer(audit_cli.app, name="audit")
install_cli.register(app)

Config = Annotated[Path, typer.Option("--config", help="The configuration file.")]
DEFAULT_CONFIG = Path("/opt/joblet/joblet-config.yml")


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


@app.command(cls=command_line.Command)
def version() -> None:
    """Show the version."""
    command_line.write(f"joblet {__version__}\n")


@app.command(cls=command_line.Command)
def serve(
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Serve in the foreground until SIGTERM or SIGINT. Jobs outlive the server."""
    _need_linux()
    gc.disable()  # hardly anything of what a server begins with, its modules included, is garbage
    from joblet.server import app as server

    raise typer.Exit(server.serve(config, on_serving=_collect_garbage))


@app.command(cls=command_line.Command)
def init(
    config: Config = DEFAULT_CONFIG,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="A name or address by which clients reach this server; may be repeated."),
    ] = None,
) -> None:
    """Make what a first start needs and is not there: certificates, and an admin's settings for rnx.

    joblet.service calls it before each start. It changes nothing that exists.
    """
    from joblet.config import load
    from joblet.first_start import prepare
    from joblet.pki import PkiError

    with _explained():
        try:
            made = prepare(load(config), config, hosts or ())
        except PkiError as error:
            raise command_line.Failure(str(error)) from None
    if made is not None:
        command_line.write(f"certificates for {', '.join(made.hosts)}: {made.certificates}\n")
        if made.settings is not None:
            command_line.write(f"an admin's settings for rnx, with the key (keep it safe): {made.settings}\n")


@app.command(cls=command_line.Command)
def doctor(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    escape: Annotated[
        bool, typer.Option("--escape", help="Try to break out of jobs of the running server instead, in every way.")
    ] = False,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --escape: the server's address.")
    ] = None,
    cert: Annotated[str | None, typer.Option(metavar="FILE", help="With --escape: an admin's certificate.")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="With --escape: its key.")] = None,
    ca: Annotated[str | None, typer.Option(metavar="FILE", help="With --escape: the CA certificate.")] = None,
) -> None:
    """Say what this host offers to jobs, what joblet uses of it, and what to do about each gap.

    The exit status is 0 when jobs can run here. Root learns more than others do. What --escape is not told it takes
    from the configuration and the certificates beside the server's.
    """
    _need_linux()
    flags = {"server": server, "cert": cert, "key": key, "ca": ca}
    if escape and as_json:
        raise typer.BadParameter("--json is not for --escape", param_hint="--json")
    if any(flags.values()) and not escape:
        raise typer.BadParameter("only --escape connects to a server", param_hint="--server, --cert, --key, --ca")
    raise typer.Exit(_attempt_escape(config, flags) if escape else _examine(config, as_json))


def _attempt_escape(config: Path, flags: dict[str, str | None]) -> int:
    from joblet.client import SettingsError
    from joblet.config import ConfigError
    from joblet.doctor.escape import run

    try:
        return run(config, flags)
    except (ConfigError, SettingsError) as error:
        raise command_line.Failure(str(error)) from None


def _examine(config: Path, as_json: bool) -> int:
    from joblet.doctor import examine, render

    report = examine(config)
    if as_json:
        command_line.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        command_line.write(render(report, terminal=sys.stdout.isatty()))
    return report.status


@app.command(cls=command_line.Command)
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy, which must not exist.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Copy the record of all jobs to a file; the server may run meanwhile. Their logs are files below STATEDIR/jobs."""
    from joblet.server.state import database
    from joblet.store.backup import backup

    with _explained():
        backup(database(_state_dir(config)), target)
    command_line.write(f"{target}\n")


@app.command(cls=command_line.Command)
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that `joblet backup` made.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Put a copy in the place of the record of all jobs, which is kept beside it. The server must not run."""
    import asyncio
    from functools import partial

    from joblet.config import load
    from joblet.server.state import database, hold, recorded
    from joblet.store.backup import restore

    with _explained():
        settings = load(config)
        with hold(settings.state_dir(config.absolute().parent)) as state_dir:
            put_back = partial(restore, source, database(state_dir))
            kept = asyncio.run(recorded(settings, state_dir, "restore", put_back, path=str(source.absolute())))
    command_line.write(f"{source} restored" + (f"; the former one is {kept}\n" if kept else "\n"))


def _state_dir(config: Path) -> Path:
    from joblet.config import load

    return load(config).state_dir(config.absolute().parent)


@contextmanager
def _explained() -> Iterator[None]:
    from joblet.config import ConfigError
    from joblet.errors import StoreFailed
    from joblet.server.state import StartError

    try:
        yield
    except (ConfigError, StartError, StoreFailed) as error:
        raise command_line.Failure(str(error)) from None


def _collect_garbage() -> None:
    """From now on; what there is already stays, and is not looked through."""
    gc.freeze()
    gc.enable()


def _need_linux() -> None:
    if sys.platform != "linux":
        raise command_line.Failure(f"job execution requires Linux server (current: {sys.platform})")


def main() -> None:
    """Entry point: one line on stderr and a status for every error, never a traceback."""
    command_line.run(app, "joblet")

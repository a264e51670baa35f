"""`joblet install` and `joblet uninstall`: make an installation by pip or pipx the service of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from joblet import command_line

Prefix = Annotated[
    Path,
    typer.Option("--prefix", metavar="DIR", help="Take DIR for the root directory: an image. systemd is not told."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_ROOT = Path("/")


def install(
    systemd: Annotated[bool, typer.Option("--systemd", help="As a service of systemd: the only kind.")] = False,
    prefix: Prefix = _ROOT,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="A name or address by which clients reach this server; may be repeated."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Write the service's units, configuration, certificates and an admin's settings for rnx, what of it is not there.

    The service starts the program of this Python environment, which has to stay where it is. It is not started here.
    What an earlier call has written is brought up to date; configuration and certificates are not touched.
    """
    from joblet import installation
    from joblet.cli import init

    if not systemd:
        raise typer.BadParameter("say --systemd: there is no other kind of service", param_hint="--systemd")
    with _explained():
        program = installation.program()
        _check_may_write(prefix, dry_run)
        for entry in installation.layout(program, prefix):
            if entry.wanted:
                command_line.write(f"{entry}\n")
                if not dry_run:
                    entry.make()
    if dry_run or prefix != _ROOT:
        return
    init(hosts=hosts)
    _systemctl("daemon-reload")
    command_line.write("now: systemctl enable --now joblet\n")


def uninstall(prefix: Prefix = _ROOT, dry_run: DryRun = False) -> None:
    """Stop the service and take away its units. Running jobs go on; configuration, certificates and state stay."""
    from joblet import installation

    with _explained():
        _check_may_write(prefix, dry_run)
        found = installation.removable(prefix)
        if found and not dry_run and prefix == _ROOT:
            _systemctl("disable", "--now", "joblet.service")
        for path in found:
            command_line.write(f"{path}\n")
            if not dry_run:
                path.unlink()
    if not dry_run and prefix == _ROOT:
        _systemctl("daemon-reload")
    command_line.write("kept: /etc/joblet, /var/lib/joblet and this program\n")


def register(app: typer.Typer) -> None:
    """Add both commands to the program."""
    for command in (install, uninstall):
        app.command(cls=command_line.Command)(command)


def _check_may_write(prefix: Path, dry_run: bool) -> None:
    from joblet import installation

    if prefix == _ROOT:
        if installation.PACKAGED.exists():
            raise installation.InstallError("joblet is here as a Debian package, which has its own service: use apt")
        if not dry_run and os.geteuid() != 0:
            raise installation.InstallError("only root can do that (--dry-run shows what it would be)")


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise command_line.Failure(f"systemctl: {error.strerror}") from None
    if done.returncode:
        raise command_line.Failure(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def _explained() -> Iterator[None]:
    from joblet.installation import InstallError

    try:
        yield
    except InstallError as error:
        raise command_line.Failure(str(error)) from None
    except OSError as error:
        raise command_line.Failure(f"{error.filename}: {error.strerror}") from None

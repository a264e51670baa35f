"""`joblet certs`: make the authority, the server's certificate and the clients', renew them and revoke them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joblet import command_line
from joblet.access import ROLES, is_role_name

if TYPE_CHECKING:
    from joblet.authority import Written

app = typer.Typer(
    cls=command_line.Group, help="Make the certificates of mutual TLS, renew and revoke them.", rich_markup_mode=None
)

Directory = Annotated[Path, typer.Option("--dir", help="Where the files are.")]
Days = Annotated[int | None, typer.Option("--days", help="Days until the certificate expires.")]
Hours = Annotated[int | None, typer.Option("--hours", min=1, help="Hours until it expires, in place of days.")]


@contextmanager
def _explained() -> Iterator[None]:
    from joblet import pki

    try:
        yield
    except pki.PkiError as error:
        raise command_line.Failure(str(error)) from None


@app.command(cls=command_line.Command)
@_explained()
def init(
    directory: Directory = Path("certs"),
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="A further name or address that clients use; may be repeated."),
    ] = None,
    days: Days = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Renew the server's certificate, by default for the same hosts. The authority stays."
        ),
    ] = False,
) -> None:
    """Create the authority, unless it exists, and the server's certificate (valid for 825 days)."""
    from joblet import pki
    from joblet.authority import Authority

    for written in Authority(directory).init(hosts or (), pki.SERVER_DAYS if days is None else days, force=force):
        _report(written)


@app.command(cls=command_line.Command)
@_explained()
def issue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The client's name; its files are called after it.")],
    role: Annotated[
        str, typer.Option("--role", help="admin (all operations), viewer (get, list, stream) or one of the server's.")
    ],
    directory: Directory = Path("certs"),
    days: Days = None,
    hours: Hours = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the client's files if they exist.")] = False,
) -> None:
    """Issue a client certificate (valid for a year) signed by the authority in the directory."""
    from joblet import pki
    from joblet.authority import Authority

    granted = role.lower()
    if not is_role_name(granted):
        raise typer.BadParameter(f"{role!r} is no name of a role (a-z, 0-9, _ and -)", param_hint="--role")
    lifetime = _lifetime(days, hours)
    _report(Authority(directory).issue(name, granted, pki.CLIENT_DAYS if lifetime is None else lifetime, force=force))
    if granted not in ROLES and sys.stderr is not None:
        sys.stderr.write(
            f"Note: {granted} may do nothing on a server whose configuration has no access.roles.{granted}\n"
        )


@app.command(cls=command_line.Command)
@_explained()
def renew(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A client's name, or `server`.")],
    directory: Directory = Path("certs"),
    days: Days = None,
    hours: Hours = None,
) -> None:
    """Make a certificate and its key again, for as long as before: with the client's role, or the server's hosts.

    The former one stays valid until its end. Without its files a client's is known by the record in the directory.
    """
    from joblet.authority import Authority

    _report(Authority(directory).renew(name, _lifetime(days, hours)))


@app.command(cls=command_line.Command)
@_explained()
def revoke(
    target: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE|SERIAL", help="A client's name, or a certificate's file or serial number."),
    ],
    directory: Directory = Path("certs"),
) -> None:
    """Write a list (crl.pem), signed by the authority, of certificates that servers no longer accept.

    A server with this directory reads it at once, and ends the streams of those clients; take the file to others.
    """
    from joblet.authority import LIST, Authority
    from joblet.issued import serial_text

    for entry in Authority(directory).revoke(target):
        command_line.write(f"{entry.name or target}: revoked {serial_text(entry.serial)}\n")
    command_line.write(f"{directory / LIST}\n")


@app.command(name="list", cls=command_line.Command)
@_explained()
def list_(directory: Directory = Path("certs")) -> None:
    """List every certificate that was issued, oldest first, and what has become of it."""
    from datetime import UTC, datetime

    from joblet.authority import Authority, columns

    for line in columns(Authority(directory).listed(), datetime.now(UTC)):
        command_line.write(f"{line}\n")


@app.command(name="rotate-ca", cls=command_line.Command)
@_explained()
def rotate_ca(directory: Directory = Path("certs")) -> None:
    """Make a new authority. The present one stays trusted beside it until `joblet certs retire-ca`.

    ca-cert.pem holds both then: give it to every client and server, renew the clients' certificates, and then the
    server's. Interrupted, it goes on when it is called again.
    """
    from joblet.authority import Authority

    _report(Authority(directory).rotate())


@app.command(name="retire-ca", cls=command_line.Command)
@_explained()
def retire_ca(
    directory: Directory = Path("certs"),
    force: Annotated[
        bool, typer.Option("--force", help="Although clients have no certificate of the new authority yet.")
    ] = False,
) -> None:
    """End the trust in the authority before `joblet certs rotate-ca`, and destroy its key.

    Servers end the connections of clients whose certificate it has signed.
    """
    from joblet.authority import Authority

    _report(Authority(directory).retire(force=force))


def _lifetime(days: int | None, hours: int | None) -> float | None:
    if days is not None and hours is not None:
        raise typer.BadParameter("give days or hours, not both", param_hint="--hours")
    return hours / 24 if hours is not None else days


def _report(written: Written) -> None:
    from joblet.authority import last_moment

    certificate, key = written.paths
    until = last_moment(written.certificate.not_valid_before_utc, written.certificate.not_valid_after_utc)
    command_line.write(f"{certificate} (until {until}), {key}\n")

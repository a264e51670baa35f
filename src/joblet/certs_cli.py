"""`joblet certs`: make the authority, the server's certificate and the clients'."""

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
    from joblet import pki

app = typer.Typer(cls=command_line.Group, help="Make the certificates of mutual TLS.", rich_markup_mode=None)

Directory = Annotated[Path, typer.Option("--dir", help="Where the files are.")]
Days = Annotated[int | None, typer.Option("--days", help="Days until the certificate expires.")]


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

    known = [path for path in pki.paths(directory, "ca") if path.exists()]
    if len(known) == 1:
        raise pki.PkiError(f"{known[0]} exists without its counterpart: restore that, or start in a new directory")
    present = [path for path in pki.paths(directory, "server") if path.exists()]
    if present and not force:
        raise pki.PkiError(f"{present[0]} exists, not overwritten (--force renews the server's certificate)")
    if present and not hosts:
        hosts = pki.hosts_of(pki.read_certificate(pki.paths(directory, "server")[0]))
    ca = pki.load(directory, "ca") if known else pki.create_ca()
    server = pki.issue_server(ca, hosts or (), pki.SERVER_DAYS if days is None else days)
    if not known:
        _report(pki.save(ca, directory, "ca"), ca)
    _report(pki.save(server, directory, "server", force=force), server)


@app.command(cls=command_line.Command)
@_explained()
def issue(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The client's name; its files are called after it.")],
    role: Annotated[
        str, typer.Option("--role", help="admin (all operations), viewer (get, list, stream) or one of the server's.")
    ],
    directory: Directory = Path("certs"),
    days: Days = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the client's files if they exist.")] = False,
) -> None:
    """Issue a client certificate (valid for a year) signed by the authority in the directory."""
    from joblet import pki

    granted = role.lower()
    if not is_role_name(granted):
        raise typer.BadParameter(f"{role!r} is no name of a role (a-z, 0-9, _ and -)", param_hint="--role")
    pki.check_name(name)
    client = pki.issue_client(pki.load(directory, "ca"), name, granted, pki.CLIENT_DAYS if days is None else days)
    _report(pki.save(client, directory, name, force=force), client)
    if granted not in ROLES and sys.stderr is not None:
        sys.stderr.write(
            f"Note: {granted} may do nothing on a server whose configuration has no access.roles.{granted}\n"
        )


def _report(written: tuple[Path, Path], pair: pki.KeyPair) -> None:
    certificate, key = written
    command_line.write(f"{certificate} (until {pair.certificate.not_valid_after_utc:%Y-%m-%d}), {key}\n")

"""`joblet init`: what a server needs before its first start, certificates, and an admin's settings for `rnx`.

An admin's settings are made with the authority and never again: whoever has moved them away finds no others.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from joblet import pki
from joblet.authority import Authority
from joblet.config import Config, ServerSection, is_pem

ADMIN = "admin"
"""the first client's name"""
SETTINGS = "rnx-config.yml"
_PORT = ServerSection().port
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""addresses of nobody (RFC 5737, RFC 3849), to ask the kernel by which of its own it would reach them"""


@dataclass(frozen=True)
class Made:
    """What was not there before."""

    certificates: Path
    """the directory"""
    hosts: tuple[str, ...]
    """that the server's certificate is for"""
    settings: Path | None
    """an admin's, if the authority is new"""


def prepare(config: Config, config_path: Path, hosts: Iterable[str] = ()) -> Made | None:
    """Make the certificates that the configuration names and an admin's settings; None when all is there.

    `hosts` are further names or addresses by which clients reach the server; the first one goes into the settings,
    which appear beside the configuration's file. Killed at any instant, it is completed when it is called again.
    Raises PkiError.
    """
    security, base = config.security, config_path.absolute().parent
    values = (security.caCert, security.serverCert, security.serverKey)
    if all(is_pem(value) or (base / value).exists() for value in values):
        return None
    directory = _directory([base / value for value in values if not is_pem(value)])
    asked = (*hosts, *security.hosts)
    settings = None
    if pki.paths(directory, "ca")[0].exists():
        ca = pki.load(directory, "ca")
    else:
        ca = pki.create_ca()
        admin = pki.issue_client(ca, ADMIN, pki.Role.ADMIN)
        settings = config_path.resolve().parent / SETTINGS
        address = _address(asked[0] if asked else _own_name(), config.server.port or _PORT)
        # Before the authority: the next call makes both anew if this one comes no further.
        Authority(directory).record(ADMIN, admin, ca)
        pki.make_directory(settings.parent)
        pki.write(settings, settings_text(address, admin, ca), 0o600, force=True)
        pki.save(ca, directory, "ca", force=True)
    server = pki.issue_server(ca, (*asked, *own_addresses()))
    Authority(directory).record("server", server, ca)
    pki.save(server, directory, "server", force=True)
    return Made(directory, tuple(pki.hosts_of(server.certificate)), settings)


def settings_text(address: str, client: pki.KeyPair, ca: pki.KeyPair) -> bytes:
    """An `rnx-config.yml` with the texts of a client's certificate and key in it."""
    texts = {"cert": client.certificate_pem, "key": client.key_pem, "ca": ca.certificate_pem}
    nodes = "".join(f"    {name}: |\n{indent(text.decode(), ' ' * 6)}" for name, text in texts.items())
    head = "# Whoever has this file may do everything on this server. rnx finds it here, in ~/.rnx, or by --config.\n"
    return f'{head}nodes:\n  default:\n    address: "{address}"\n{nodes}'.encode()


def own_addresses() -> list[str]:
    """The addresses by which this machine reaches others; it sends nothing to find out."""
    return list(_own_addresses())


def _own_addresses() -> Iterator[str]:
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.connect((elsewhere, 9))
            yield channel.getsockname()[0]


def _own_name() -> str:
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _directory(paths: list[Path]) -> Path:
    """Where all three files are, if they have the names that they get here. Raises PkiError.

    A key alone is what was written when this was killed: of each pair it comes first, and the authority's pair before
    the server's. Anything else that is there without the rest has been something else, and is left alone.
    """
    directory = paths[0].parent
    authority, certificate, key = pki.paths(directory, "ca")[0], *pki.paths(directory, "server")
    if tuple(paths) != (authority, certificate, key):
        (absent, *_) = (path for path in paths if not path.exists())
        wanted = f"{authority.name}, {certificate.name} and {key.name} in one directory"
        raise pki.PkiError(f"{absent} does not exist, and is not made: that would be {wanted}")
    present = [path for path in (certificate, key) if path.exists()]
    if certificate in present or (present and not authority.exists()):
        lacking = authority if not authority.exists() else key
        raise pki.PkiError(f"{present[0]} exists without {lacking}: restore that, or remove what is there")
    return directory

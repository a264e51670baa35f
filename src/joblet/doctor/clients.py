"""As which client to reach the server that a configuration describes, on the host where both are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.x509.oid import NameOID

from joblet import config, pki
from joblet.client import ClientConfig, SettingsError
from joblet.config import Config

_SUFFIX = "-cert.pem"


def client_config(
    settings: Config, base: Path, flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ
) -> ClientConfig:
    """Each setting from rnx's flags and variables, and what they leave open from the server's configuration.

    `base` is the directory of the configuration file. Raises SettingsError when no admin's certificate is found.
    """
    given = {name: value or environ.get(variable) for name, (value, variable) in _pair(flags).items()}
    ca = given["ca"] or _resolve(settings.security.caCert, base)
    cert, key = given["cert"], given["key"]
    if not (cert and key):
        if cert or key:
            raise SettingsError("--cert and --key go together")
        if config.is_pem(ca):
            raise SettingsError("no client certificate: name one with --cert and --key")
        cert, key = map(str, find_admin(Path(ca).parent, Path(ca)))
    return ClientConfig(given["server"] or _address(settings), cert, key, ca)


def find_admin(directory: Path, authority: Path) -> tuple[Path, Path]:
    """Certificate and key of an admin in `directory` that the authority issued and that holds today.

    Raises SettingsError.
    """
    try:
        ca = pki.read_certificate(authority)
        found = sorted(directory.glob(f"*{_SUFFIX}"))
    except (pki.PkiError, OSError) as error:
        raise SettingsError(f"no client certificate: {error}") from None
    for path in found:
        _, key = pki.paths(directory, path.name.removesuffix(_SUFFIX))
        try:
            certificate = pki.read_certificate(path)
        except pki.PkiError:
            continue
        units = [
            str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        ]
        valid = not pki.has_expired(certificate) and pki.is_issued_by(certificate, ca)
        if [unit.lower() for unit in units] == [pki.Role.ADMIN.value] and valid and os.access(key, os.R_OK):
            return path, key
    raise SettingsError(
        f"no admin's certificate in {directory}: make one with joblet certs issue, or name one with --cert and --key"
    )


def _pair(flags: Mapping[str, str | None]) -> dict[str, tuple[str | None, str]]:
    variables = {
        "server": "JOBLET_SERVER",
        "cert": "JOBLET_CERT_PATH",
        "key": "JOBLET_KEY_PATH",
        "ca": "JOBLET_CA_PATH",
    }
    return {name: (flags.get(name), variable) for name, variable in variables.items()}


def _resolve(value: str, base: Path) -> str:
    return value if config.is_pem(value) else str(base / value)


def _address(settings: Config) -> str:
    if settings.server.port == 0:
        raise SettingsError("the server chooses its port: name it with --server")
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(settings.server.address, settings.server.address)
    return f"[{host}]:{settings.server.port}" if ":" in host else f"{host}:{settings.server.port}"

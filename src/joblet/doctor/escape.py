"""`joblet doctor --escape`: which server, as which client, and what the suite may know of the server's host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.x509.oid import NameOID

from joblet import config, escape, pki
from joblet.client import ClientConfig, SettingsError
from joblet.client.config import VARIABLES
from joblet.config import Config
from joblet.escape import HostContext

_SUFFIX = "-cert.pem"


def run(config_path: Path, flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> int:
    """Run the escape suite against the server of that configuration; the exit status.

    `flags` are rnx's: server, cert, key, ca. Raises ConfigError and SettingsError.
    """
    # With every flag given it does not take the server's configuration, which only root may be able to read.
    settings = config.load(config_path) if config_path.exists() or not all(flags.values()) else Config()
    base = config_path.absolute().parent
    return escape.main(client_config(settings, base, flags, environ), host_context(settings, config_path))


def host_context(settings: Config, config_path: Path) -> HostContext:
    """What the configuration tells of the host that attempts are made on."""
    base = config_path.absolute().parent
    keys: tuple[Path, ...] = ()
    if not config.is_pem(settings.security.serverKey):
        key = (base / settings.security.serverKey).resolve()
        keys = (key, key.with_name("ca-key.pem"))
    shown = settings.isolation
    return HostContext(
        state_dir=settings.state_dir(base).resolve(),
        config=config_path.resolve(),
        keys=keys,
        shown=tuple(map(Path, (*shown.readOnly, *shown.writable))),
        writable=tuple(map(Path, shown.writable)),
        scratch_megabytes=shown.tmpSize,
        log_megabytes=settings.joblet.maxLogSize,
    )


def client_config(
    settings: Config, base: Path, flags: Mapping[str, str | None], environ: Mapping[str, str]
) -> ClientConfig:
    """Each setting from rnx's flags and variables, and what they leave open from the server's configuration.

    `base` is the directory of the configuration file. Raises SettingsError when no admin's certificate is found.
    """
    given = {name: flags.get(name) or environ.get(variable) for name, variable in VARIABLES.items()}
    authority = settings.security.caCert
    ca = given["ca"] or (authority if config.is_pem(authority) else str(base / authority))
    cert, key = given["cert"], given["key"]
    if bool(cert) != bool(key):
        raise SettingsError("a client's certificate and key go together: name both, with --cert and --key")
    if not cert or not key:
        if config.is_pem(settings.security.serverCert):
            raise SettingsError("the configuration names no directory of certificates: name one by --cert and --key")
        cert, key = map(str, find_admin((base / settings.security.serverCert).parent, ca))
    return ClientConfig(given["server"] or _address(settings), cert, key, ca)


def find_admin(directory: Path, ca: str) -> tuple[Path, Path]:
    """Certificate and key of an admin that an authority of `ca` issued and that holds today.

    Raises SettingsError.
    """
    try:
        authorities = pki.read_certificates(ca)
        candidates = sorted(directory.glob(f"*{_SUFFIX}"))
    except (pki.PkiError, OSError) as error:
        raise SettingsError(f"no client certificate: {error}") from None
    for path in candidates:
        _, key = pki.paths(directory, path.name.removesuffix(_SUFFIX))
        try:
            certificate = pki.read_certificate(path)
        except pki.PkiError:
            continue
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        is_admin = [str(unit.value).lower() for unit in units] == [pki.Role.ADMIN.value]
        ours = any(pki.is_issued_by(certificate, authority) for authority in authorities)
        holds = ours and not pki.has_expired(certificate)
        if is_admin and holds and os.access(key, os.R_OK):
            return path, key
    raise SettingsError(
        f"no admin's certificate in {directory}: make one with joblet certs issue, or name one by --cert and --key"
    )


def _address(settings: Config) -> str:
    if settings.server.port == 0:
        raise SettingsError("the server takes any port that is free: name its address with --server")
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(settings.server.address, settings.server.address)
    return f"[{host}]:{settings.server.port}" if ":" in host else f"{host}:{settings.server.port}"

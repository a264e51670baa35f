"""The server's side of mutual TLS: its files, each read and checked by itself, and the context made of them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from joblet import revocation
from joblet.config import ConfigError, SecuritySection, is_pem
from joblet.revocation import RevocationError, Revocations

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_LIST = "crl.pem"
_NO_CERTIFICATE = "not a certificate in PEM format, or a damaged one"


def server_context(security: SecuritySection, base: Path) -> ssl.SSLContext:
    """TLS as the configuration in directory `base` says.

    A client without a certificate may connect, so that it can be told so, but every call of it is refused; a
    certificate that another CA signed or that has expired fails the handshake. Raises ConfigError with the key and
    the file.
    """
    return context(security, read_identity(security, base), read_authorities(security, base))


@dataclass(frozen=True)
class Identity:
    """The server's certificate, with those that lead to its authority, and its key."""

    certificates: Sequence[x509.Certificate]
    certificate_pem: bytes
    key_pem: bytes


@dataclass(frozen=True)
class Authorities:
    """Who may sign clients' certificates."""

    certificates: Sequence[x509.Certificate]
    pem: bytes


def context(security: SecuritySection, identity: Identity, authorities: Authorities) -> ssl.SSLContext:
    """A context of what was read and checked.

    It gives no tickets: OpenSSL does not verify again the certificate of a session that is resumed.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = _VERSIONS[security.minTlsVersion]
    made.set_alpn_protocols(["h2"])
    made.verify_mode = ssl.CERT_OPTIONAL
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    _load_identity(made, identity.certificate_pem, identity.key_pem)
    made.load_verify_locations(cadata=_der(authorities.certificates))
    return made


def read_identity(security: SecuritySection, base: Path) -> Identity:
    """`security.serverCert` and `serverKey`. Raises ConfigError."""
    cert, key = _read(security.serverCert, base, "serverCert"), _read(security.serverKey, base, "serverKey")
    try:
        certificates = x509.load_pem_x509_certificates(cert)
    except ValueError:
        raise ConfigError(f"security.serverCert: {_NO_CERTIFICATE} ({_name(security.serverCert, base)})") from None
    try:
        _load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
    except (ssl.SSLError, ValueError) as error:
        names = f"{_name(security.serverCert, base)}, {_name(security.serverKey, base)}"
        raise ConfigError(f"security.serverCert and serverKey: {_text(error)} ({names})") from None
    return Identity(certificates, cert, key)


def read_authorities(security: SecuritySection, base: Path) -> Authorities:
    """`security.caCert`: one certificate or several. Raises ConfigError."""
    pem = _read(security.caCert, base, "caCert")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_der(certificates))
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"security.caCert: {_NO_CERTIFICATE} ({_name(security.caCert, base)})") from None
    return Authorities(certificates, pem)


def read_revocations(
    security: SecuritySection, base: Path, authorities: Authorities, *, expected: bool = False
) -> Revocations:
    """`security.revocationList`. The default's file may be absent, unless it is `expected`. Raises ConfigError."""
    if (setting := list_setting(security)) is None:
        return Revocations()
    try:
        pem = _read(setting, base, "revocationList")
    except FileNotFound:
        if security.revocationList is None and not expected:
            return Revocations()
        raise
    try:
        return revocation.read(pem, authorities.certificates)
    except RevocationError as error:
        raise ConfigError(f"security.revocationList: {_name(setting, base)}: {error}") from None


def list_setting(security: SecuritySection) -> str | None:
    """`security.revocationList`, or its default: `crl.pem` beside `caCert`, where that is a file."""
    if security.revocationList is not None:
        return security.revocationList
    return None if is_pem(security.caCert) else str(Path(security.caCert).parent / _LIST)


def files(security: SecuritySection, base: Path) -> list[Path]:
    """The files that all of this is read from."""
    settings = (security.serverCert, security.serverKey, security.caCert, list_setting(security))
    return [base / setting for setting in settings if setting is not None and not is_pem(setting)]


class FileNotFound(ConfigError):
    """A file that the configuration names is not there."""


def _read(setting: str, base: Path, key: str) -> bytes:
    if is_pem(setting):
        return setting.encode()
    try:
        return (base / setting).read_bytes()
    except OSError as error:
        kind = FileNotFound if isinstance(error, FileNotFoundError) else ConfigError
        raise kind(f"security.{key}: {base / setting}: {error.strerror}") from None


def _name(setting: str, base: Path) -> str:
    return "PEM text" if is_pem(setting) else str(base / setting)


def _load_identity(made: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    with _as_file(cert) as cert_path, _as_file(key) as key_path:
        made.load_cert_chain(cert_path, key_path, password=_no_password)


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """What was read, as a path that OpenSSL can open: a file itself may be another by now."""
    descriptor = os.memfd_create("joblet-pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _der(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def _no_password() -> str:
    raise ValueError("the key is encrypted; joblet needs one without a passphrase")


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)

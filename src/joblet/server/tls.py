"""The server's side of mutual TLS."""

from __future__ import annotations

import contextlib
import os
import ssl
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509

from joblet.config import ConfigError, SecuritySection, is_pem

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(security: SecuritySection, base: Path) -> ssl.SSLContext:
    """TLS as the configuration in directory `base` says.

    A client without a certificate may connect, so that it can be told so, but every call of it is refused; a
    certificate that another CA signed or that has expired fails the handshake. Raises ConfigError with the key and
    the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[security.minTlsVersion]
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_OPTIONAL
    with _File(security.serverCert, base, "serverCert") as cert, _File(security.serverKey, base, "serverKey") as key:
        try:
            context.load_cert_chain(cert.path, key.path, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"security.serverCert and serverKey: {_text(error)} ({cert.name}, {key.name})") from None
    with _File(security.caCert, base, "caCert") as ca:
        try:
            context.load_verify_locations(ca.path)
        except ssl.SSLError as error:
            raise ConfigError(f"security.caCert: {_text(error)} ({ca.name})") from None
    return context


def expiries(security: SecuritySection, base: Path) -> dict[str, datetime]:
    """When the certificates of the configuration in directory `base` end: `server`'s and `ca`'s, the first of several.

    What cannot be read is left out.
    """
    found: dict[str, datetime] = {}
    for name, value in (("server", security.serverCert), ("ca", security.caCert)):
        with contextlib.suppress(OSError, ValueError):
            data = value.encode() if is_pem(value) else (base / value).read_bytes()
            found[name] = min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(data))
    return found


class _File:
    """A security value as a path that OpenSSL can open: the file itself, or the PEM text in memory."""

    def __init__(self, value: str, base: Path, key: str) -> None:
        self._fd = -1
        if is_pem(value):
            self.name = "PEM text"
            self._fd = os.memfd_create("joblet-pem", os.MFD_CLOEXEC)
            os.write(self._fd, value.encode())
            self.path = f"/proc/self/fd/{self._fd}"
            return
        self.path = self.name = str(base / value)
        try:
            with open(self.path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f"security.{key}: {self.path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _no_password() -> str:
    raise ValueError("the key is encrypted; joblet needs one without a passphrase")


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)

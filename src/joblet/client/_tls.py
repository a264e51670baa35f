"""The client's side of mutual TLS."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from joblet.client.config import ClientConfig, is_pem
from joblet.client.errors import SettingsError


def client_context(config: ClientConfig) -> ssl.SSLContext:
    """A context that shows the client's certificate and accepts only a server of its CA, under the name called.

    Raises SettingsError that names the setting and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    ca = read_pem(config.ca, "CA certificate")
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise SettingsError(f"{_called(config.ca, 'CA certificate')} is not in PEM format") from None
    _load_certificate(context, config)
    return context


def read_pem(setting: str, what: str) -> str:
    """The PEM text of a setting, called `what` in errors. Characters beyond ASCII can only be comments: dropped.

    Raises SettingsError when its file cannot be read.
    """
    if is_pem(setting):
        return setting.encode("ascii", "ignore").decode()
    try:
        with open(os.path.expanduser(setting), encoding="ascii", errors="ignore") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"cannot read {what} {setting}: {reason}") from None


def _load_certificate(context: ssl.SSLContext, config: ClientConfig) -> None:
    cert, key = _called(config.cert, "client certificate"), _called(config.key, "client key")
    if "-----BEGIN CERTIFICATE-----" not in read_pem(config.cert, "client certificate"):
        raise SettingsError(f"{cert} is not in PEM format")
    if "PRIVATE KEY-----" not in read_pem(config.key, "client key"):
        raise SettingsError(f"{key} is not in PEM format")
    with _as_file(config.cert) as cert_file, _as_file(config.key) as key_file:
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except _EncryptedKey:
            raise SettingsError(f"{key} is encrypted; a key without a passphrase is needed") from None
        except ssl.SSLError as error:
            if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                raise SettingsError(f"{key} does not match {cert}") from None
            raise SettingsError(f"{cert} or {key} is malformed or of an unsupported kind") from None


def _called(setting: str, what: str) -> str:
    return f"{what} (PEM text)" if is_pem(setting) else f"{what} {setting}"


class _EncryptedKey(Exception):
    """OpenSSL asked for a passphrase; without this answer it would ask on the terminal."""


def _no_password() -> str:
    raise _EncryptedKey


@contextmanager
def _as_file(setting: str) -> Iterator[str]:
    """A path that OpenSSL can open. PEM text goes to a file that only we can read, for a moment."""
    if not is_pem(setting):
        yield os.path.expanduser(setting)
        return
    descriptor, path = tempfile.mkstemp(prefix="joblet-", suffix=".pem")
    try:
        with open(descriptor, "w", encoding="ascii", errors="ignore") as file:
            file.write(setting)
        yield path
    finally:
        os.unlink(path)

"""The certificates of mutual TLS: one authority, the server's certificate, and a client's with its role.

A client is `CN=<name>, OU=<role>, O=joblet`; the server reads the role from OU (API.md, "Authentication").
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 825
"""the longest that Apple's and other strict verifiers accept"""
CLIENT_DAYS = 365
MAX_DAYS = 36_500

CLOCK_SKEW = timedelta(minutes=5)
"""certificates are valid from this long ago, for peers whose clock is behind"""

ORGANIZATION = "joblet"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_DNS_NAME = re.compile(
    r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?", re.IGNORECASE
)
_RESERVED = {"ca", "server"}


class PkiError(Exception):
    """A certificate or key cannot be made, written or read; the message names the file or the value."""


class Role(StrEnum):
    """What a client may do."""

    ADMIN = "admin"
    """all operations"""
    VIEWER = "viewer"
    """get, list and stream"""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM text."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as unencrypted PKCS #8 PEM text."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def create_ca(days: int = CA_DAYS, *, now: datetime | None = None) -> KeyPair:
    """Make an authority valid for `days` from `now`.

    Raises PkiError when `days` is out of bounds.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("joblet CA")
    builder = (
        _builder(name, name, key, _validity(days, now))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def issue_server(
    ca: KeyPair, hosts: Iterable[str] = (), days: int = SERVER_DAYS, *, now: datetime | None = None
) -> KeyPair:
    """Make the server's certificate for this machine's names and `hosts` (DNS names or IP addresses).

    Raises PkiError when a host is neither, `days` is out of bounds, or the authority has expired.
    """
    names = dict.fromkeys([*_local_names(), *(_general_name(host) for host in hosts)])
    return _issue(
        ca,
        _subject("joblet server"),
        days,
        now,
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), x509.SubjectAlternativeName(names)),
    )


def issue_client(
    ca: KeyPair, name: str, role: Role, days: int = CLIENT_DAYS, *, now: datetime | None = None
) -> KeyPair:
    """Make a client's certificate.

    Raises PkiError when the name is not usable as a file name, `days` is out of bounds, or the authority has expired.
    """
    check_name(name)
    return _issue(ca, _subject(name, role), days, now, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),))


def check_name(name: str) -> None:
    """Raise PkiError unless a client may be called `name`, which also names its files."""
    if not _NAME.fullmatch(name):
        raise PkiError(f"invalid name {name!r}: use up to 64 of A-Z a-z 0-9 . _ -, and no leading dot")
    if name.lower() in _RESERVED:
        raise PkiError(f"invalid name {name!r}: reserved")


def paths(directory: Path, name: str) -> tuple[Path, Path]:
    """The certificate's and the key's file of `name`."""
    return directory / f"{name}-cert.pem", directory / f"{name}-key.pem"


def save(pair: KeyPair, directory: Path, name: str, *, force: bool = False) -> tuple[Path, Path]:
    """Write both files and return their paths. The key is never readable by others, not for an instant.

    Raises PkiError when a file cannot be written or, without `force`, exists.
    """
    certificate_path, key_path = paths(directory, name)
    if not force:
        for path in (certificate_path, key_path):
            if os.path.lexists(path):
                raise PkiError(f"{path} exists, not overwritten")
    _make_directory(directory)
    _write(key_path, pair.key_pem, 0o600, force)
    _write(certificate_path, pair.certificate_pem, 0o644, force)
    return certificate_path, key_path


def write_private(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file that only its owner can read.

    Raises PkiError when it cannot be written or, without `force`, exists.
    """
    _make_directory(path.parent)
    _write(path, data, 0o600, force)


def load(directory: Path, name: str) -> KeyPair:
    """Read a certificate and its key back.

    Raises PkiError when a file is absent, unreadable or malformed, or the key is another certificate's.
    """
    certificate_path, key_path = paths(directory, name)
    certificate = read_certificate(certificate_path)
    data = _read(key_path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PkiError(f"{key_path}: not an unencrypted private key in PEM format") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{key_path}: not an elliptic curve key")
    if key.public_key() != certificate.public_key():
        raise PkiError(f"{key_path} is not the key of {certificate_path}")
    return KeyPair(certificate, key)


def read_certificate(source: str | Path) -> x509.Certificate:
    """The first certificate in a file, or in the PEM text itself.

    Raises PkiError when the file cannot be read or holds no certificate.
    """
    text = isinstance(source, str) and "-----BEGIN" in source
    data = str(source).encode() if text else _read(Path(source))
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise PkiError(f"{'PEM text' if text else source}: not a certificate in PEM format") from None


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that a server's certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.DNSName) + addresses


def has_expired(certificate: x509.Certificate, now: datetime | None = None) -> bool:
    """Whether the certificate's last day has passed."""
    return certificate.not_valid_after_utc < (now or datetime.now(UTC))


def is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether `ca`'s key signed the certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _issue(
    ca: KeyPair,
    subject: x509.Name,
    days: int,
    now: datetime | None,
    extensions: Iterable[x509.ExtensionType],
) -> KeyPair:
    start, end = _validity(days, now)
    if has_expired(ca.certificate, start + CLOCK_SKEW):
        raise PkiError(f"the authority expired on {ca.certificate.not_valid_after_utc:%Y-%m-%d}")
    key = ec.generate_private_key(ec.SECP256R1())
    authority = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(subject, ca.certificate.subject, key, (start, min(end, ca.certificate.not_valid_after_utc)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return KeyPair(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str, role: Role | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if role is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value))
    attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION))
    return x509.Name(attributes)


def _validity(days: int, now: datetime | None) -> tuple[datetime, datetime]:
    if not 1 <= days <= MAX_DAYS:
        raise PkiError(f"invalid number of days {days}: from 1 to {MAX_DAYS}")
    start = now or datetime.now(UTC)
    return start - CLOCK_SKEW, start + timedelta(days=days)


def _local_names() -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [_general_name(host) for host in ("localhost", "127.0.0.1", "::1")]
    for host in (socket.gethostname(), socket.getfqdn()):
        try:
            names.append(_general_name(host))
        except PkiError:
            continue  # a machine may carry a name that no certificate can
    return names


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if len(name) > 253 or not _DNS_NAME.fullmatch(name):
        raise PkiError(f"invalid host {host!r}: neither a DNS name nor an IP address")
    return x509.DNSName(name.lower().removesuffix("."))


def _make_directory(directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise PkiError(f"cannot create directory {directory}: {error.strerror}") from None


def _write(path: Path, data: bytes, mode: int, force: bool) -> None:
    """Appear at `path` whole or not at all: written under another name, then linked (which refuses to replace)."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | cast(int, getattr(os, "O_NOFOLLOW", 0))
    try:
        descriptor = os.open(temporary, flags, mode)
        try:
            with open(descriptor, "wb") as file:
                if hasattr(os, "fchmod"):
                    os.fchmod(descriptor, mode)  # the umask may have taken bits that readers need
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if force:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise PkiError(f"{path} exists, not overwritten") from None
    except OSError as error:
        raise PkiError(f"cannot write {path}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"cannot read {path}: {error.strerror}") from None

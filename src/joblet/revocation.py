"""Lists of revoked certificates: read with all that can be wrong with them, and signed anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from joblet.pki import CLOCK_SKEW, KeyPair

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class RevocationError(Exception):
    """A list cannot be used; the message says why, and leaves it to others to name the file."""


Key = tuple[bytes, int]
"""of a certificate: its issuer's name (DER) and its serial number (RFC 5280, section 4.1.2.2)"""


def key_of(certificate: x509.Certificate) -> Key:
    """By which lists name a certificate."""
    return certificate.issuer.public_bytes(), certificate.serial_number


@dataclass(frozen=True)
class Revocations:
    """What one file of lists says, of each authority one."""

    revoked: Mapping[Key, datetime] = field(default_factory=dict)
    """since when, by certificate"""
    until: datetime | None = None
    """when the first of the lists wants to be replaced by a newer one"""
    number: int = 0
    """the highest of the lists' own numbers: a newer list has a higher one"""


def read(pem: bytes, authorities: Iterable[x509.Certificate]) -> Revocations:
    """The lists in PEM text, each signed by one of the authorities.

    Raises RevocationError for text without a list, a damaged one, one that nobody of `authorities` has signed, and one
    that can be understood only with extensions that are not known here.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks or pem.count(b"-----BEGIN ") != len(blocks):
        raise RevocationError("not a list of revoked certificates in PEM format, or a damaged one")
    known = tuple(authorities)
    revoked: dict[Key, datetime] = {}
    ends, numbers = [], [0]
    for block in blocks:
        try:
            crl = x509.load_pem_x509_crl(block)
            _check(crl, known)
            issuer = crl.issuer.public_bytes()
            revoked |= {(issuer, entry.serial_number): entry.revocation_date_utc for entry in crl}
            numbers.append(_number(crl))
        except ValueError as error:
            raise RevocationError(f"damaged: {error}") from None
        if crl.next_update_utc is not None:
            ends.append(crl.next_update_utc)
    return Revocations(revoked, min(ends, default=None), max(numbers))


def _check(crl: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]) -> None:
    if not any(_is_signed_by(crl, authority) for authority in authorities):
        raise RevocationError("not signed by an authority of security.caCert")
    for extension in crl.extensions:
        if extension.critical:  # a list of changes only, or of others' certificates: RFC 5280, section 5.2
            raise RevocationError(f"has the extension {extension.oid.dotted_string}, which joblet does not know")


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _is_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if crl.issuer != authority.subject:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # TypeError for other kinds
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def sign(ca: KeyPair, revoked: Mapping[int, datetime], number: int, *, now: datetime | None = None) -> bytes:
    """The PEM text of an authority's list: serial numbers and since when, good for as long as the authority is."""
    now = now or datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(ca.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

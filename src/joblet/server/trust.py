"""Which clients the server trusts: those of its authorities whose certificates are in force, and not revoked."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from cryptography import x509

from joblet import pki, revocation
from joblet.errors import CertificateRefused
from joblet.revocation import Revocations


@dataclass(frozen=True)
class Chain:
    """A client's certificate and what leads from it to the authority that was trusted in the handshake."""

    certificates: Sequence[x509.Certificate]
    """the client's own first; without the authority's, unless the client's is that itself"""

    @cached_property
    def name(self) -> str:
        """The client's."""
        return pki.name_of(self.certificates[0])

    @cached_property
    def until(self) -> datetime:
        """When the first of them ends."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    @cached_property
    def keys(self) -> Sequence[revocation.Key]:
        """By which lists name them."""
        return [revocation.key_of(certificate) for certificate in self.certificates]

    @classmethod
    def of(cls, verified: Sequence[bytes]) -> Chain:
        """Of what `verified_chain` gives."""
        below = verified[:-1] if len(verified) > 1 else verified
        return cls([x509.load_der_x509_certificate(certificate) for certificate in below])


def verified_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """What OpenSSL has verified, DER, the client's certificate first; empty for a client without one."""
    own = tls.getpeercert(binary_form=True)
    if own is None:
        return ()
    if sys.version_info >= (3, 13):
        chain = tls.get_verified_chain()
    else:
        inner = tls._sslobj  # type: ignore[attr-defined]  # what get_verified_chain was made of
        chain = [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_verified_chain() or ()]
    return tuple(chain) or (own,)  # of a resumed session there is no more


@dataclass(frozen=True)
class Trust:
    """What is trusted at one time. Never changed: another takes its place."""

    authorities: Sequence[x509.Certificate]
    """of `security.caCert`"""
    revocations: Revocations
    """of `security.revocationList`"""

    def refusal(self, chain: Chain, now: datetime | None = None) -> CertificateRefused | None:
        """Why the client may not be served; None when it may.

        Whether an authority has signed the chain is for `is_rooted`: in its handshake OpenSSL has seen to that.
        """
        if (now or datetime.now(UTC)) >= chain.until:
            end = f"{chain.until:%Y-%m-%d %H:%M:%S} UTC"
            return CertificateRefused(chain.name, f"expired at {end}: have it renewed")
        for key in chain.keys:
            if since := self.revocations.revoked.get(key):
                return CertificateRefused(chain.name, f"was revoked on {since:%Y-%m-%d}: have another one issued")
        return None

    def is_rooted(self, chain: Chain) -> bool:
        """Whether one of the authorities has signed the last of the chain."""
        return any(pki.is_issued_by(chain.certificates[-1], authority) for authority in self.authorities)


def unrooted(chain: Chain) -> CertificateRefused:
    """What a client is told whose authority is not trusted any more."""
    return CertificateRefused(chain.name, "is of a retired authority: have it renewed")

"""What rnx reads of certificates, and when it says that they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from joblet import pki
from joblet.client._validity import Validity, of_der, of_pem
from rnx.expiry import warnings

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
moments = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


def certificate(start: datetime, end: datetime, issuer: str = "a") -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    return builder.sign(KEY, hashes.SHA256())


@given(st.tuples(moments, moments).map(sorted), st.text("ab", min_size=1, max_size=60))
def test_of_every_certificate_the_dates_are_read(dates: list[datetime], issuer: str) -> None:
    found = of_der(certificate(*dates, issuer).public_bytes(Encoding.DER))
    assert found == Validity(*dates)


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_what_is_none_gives_nothing(noise: bytes, place: int, value: int) -> None:
    assert of_der(noise) is None or isinstance(of_der(noise), Validity)
    der = bytearray(certificate(NOW, NOW + timedelta(days=1)).public_bytes(Encoding.DER))
    der[place] = value
    assert of_der(bytes(der)) is None or isinstance(of_der(bytes(der)), Validity)
    assert of_der(bytes(der[:place])) is None


def test_of_a_file_the_first_counts_whatever_stands_around_it() -> None:
    own, ca = certificate(NOW, NOW + timedelta(days=1)), pki.create_ca().certificate
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in (own, ca))
    assert of_pem(f"a comment\n{text}") == Validity(NOW, NOW + timedelta(days=1))
    empty = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"
    for nothing in ("", "-----BEGIN CERTIFICATE-----", text[:100], empty):
        assert of_pem(nothing) is None


@pytest.mark.parametrize(
    ("lived", "left", "told"),
    [
        (timedelta(days=365), timedelta(days=14), None),
        (timedelta(days=365), timedelta(days=13, hours=20), "expires in 13 days, on 2026-01-29"),
        (timedelta(days=365), timedelta(hours=30), "expires at 2026-01-16 16:30 UTC"),
        (timedelta(days=365), timedelta(0), "expired at 2026-01-15 10:30 UTC"),
        (timedelta(hours=2), timedelta(hours=6), None),
        (timedelta(hours=7), timedelta(hours=1), "expires at 2026-01-15 11:30 UTC"),
        (timedelta(days=1), timedelta(days=9), "expires in 9 days, on 2026-01-24"),
    ],
)
def test_it_is_told_in_time_and_of_short_lived_ones_not_always(
    lived: timedelta, left: timedelta, told: str | None
) -> None:
    validity = Validity(NOW - lived, NOW + left)
    expected = [f"client certificate a.pem {told}: have it renewed (joblet certs renew)"] if told else []
    assert list(warnings({"client": validity}, "a.pem", NOW)) == expected
    expected = [f"the server's certificate {told}: have it renewed there (joblet certs renew server)"] if told else []
    assert list(warnings({"server": validity}, "a.pem", NOW)) == expected

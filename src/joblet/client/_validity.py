"""How long a certificate is valid, read from its bytes without a library that would take longer to load than a call."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import NamedTuple

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_TIMES = {0x17: 2, 0x18: 4}
"""UTCTime and GeneralizedTime, and the digits of their year: RFC 5280, section 4.1.2.5"""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Validity(NamedTuple):
    """From when until when."""

    start: datetime
    end: datetime


def of_pem(text: str) -> Validity | None:
    """That of the first certificate in PEM text; None where there is none that can be read."""
    begin = text.find(_BEGIN)
    end = text.find(_END, begin)
    if begin < 0 or end < 0:
        return None
    try:
        return of_der(ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)]))
    except ValueError:
        return None


def of_der(der: bytes) -> Validity | None:
    """That of a certificate; None where it cannot be read."""
    try:
        _, place, _ = _element(der, 0, _SEQUENCE)
        _, place, _ = _element(der, place, _SEQUENCE)
        if der[place] == _VERSION:
            _, _, place = _element(der, place, _VERSION)
        for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
            _, _, place = _element(der, place, tag)
        _, place, _ = _element(der, place, _SEQUENCE)
        start, place = _time(der, place)
        end, _ = _time(der, place)
    except (IndexError, ValueError):
        return None
    return Validity(start, end)


def _element(der: bytes, place: int, *tags: int) -> tuple[int, int, int]:
    """Tag, first byte and end of the content of what stands at a place (X.690). Raises IndexError or ValueError."""
    tag, length = der[place], der[place + 1]
    place += 2
    if tag not in tags:
        raise ValueError
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[place : place + size])
        place += size
    if place + length > len(der):
        raise IndexError
    return tag, place, place + length


def _time(der: bytes, place: int) -> tuple[datetime, int]:
    tag, begin, end = _element(der, place, *_TIMES)
    text, digits = der[begin:end].decode("ascii"), _TIMES[tag]
    year, rest = int(text[:digits]), text[digits:]
    if digits == 2:
        year += 2000 if year < 50 else 1900
    month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, 10, 2))
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC), end

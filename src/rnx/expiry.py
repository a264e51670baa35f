"""What a command says of certificates that end soon, before a call fails for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from joblet.client import Validity

_SOON = timedelta(days=14)
_SHORT_LIVED = timedelta(days=2)
"""certificates made for no longer than this are told of in their last quarter"""


def warnings(validities: Mapping[str, Validity], cert: str, now: datetime) -> Iterator[str]:
    """A sentence for each certificate that ends soon or has ended; `cert` is the setting that names the client's."""
    for whose, (start, end) in validities.items():
        lifetime = end - start
        if end - now >= (lifetime / 4 if lifetime <= _SHORT_LIVED else _SOON):
            continue
        if whose == "client":
            what = "client certificate" if "-----BEGIN" in cert else f"client certificate {cert}"
            yield f"{what} {_when(end, now)}: have it renewed (joblet certs renew)"
        else:
            yield f"the server's certificate {_when(end, now)}: have it renewed there (joblet certs renew server)"


def _when(end: datetime, now: datetime) -> str:
    left = end - now
    if left <= timedelta(0):
        return f"expired at {end:%Y-%m-%d %H:%M} UTC"
    if left < timedelta(days=2):
        return f"expires at {end:%Y-%m-%d %H:%M} UTC"
    return f"expires in {left.days} days, on {end:%Y-%m-%d}"

"""The server's certificates while it runs: read again when they change, and their end foretold.

What is in use is replaced as a whole. New connections meet the new; those that stand go on, unless their client is not
trusted any more. A file that cannot be used is refused, and what it would have replaced stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from joblet import pki
from joblet.config import ConfigError, SecuritySection
from joblet.errors import CertificateRefused, JobletError
from joblet.log import fields
from joblet.revocation import Revocations
from joblet.server import tls
from joblet.server.clients import Clients, Connection
from joblet.server.trust import Trust, verified_chain
from joblet.server.watch import FileWatch, ways

log = logging.getLogger(__name__)
T = TypeVar("T")

_SETTLE_SECONDS = 0.1
"""from a change to reading it: certificate and key are two files"""
_DAY_SECONDS = 86_400.0
_SOON = timedelta(days=30)
_VERY_SOON = timedelta(days=7)


@dataclass(frozen=True)
class _Files:
    """What the files say."""

    identity: tls.Identity
    authorities: tls.Authorities
    revocations: Revocations


class Certificates:
    """The mutable state is what is in use, the clients that are connected, and the task that reads changed files."""

    def __init__(self, security: SecuritySection, base: Path) -> None:
        """Read the files that the configuration in directory `base` names. Raises ConfigError."""
        self._security, self._base = security, base
        self.on_changed: Callable[[Mapping[str, str]], None] = lambda ends: None
        """told of the days on which those end that are in use from now on"""
        identity = tls.read_identity(security, base)
        authorities = tls.read_authorities(security, base)
        self._files = _Files(identity, authorities, tls.read_revocations(security, base, authorities))
        self._context = tls.context(security, identity, authorities)
        self._clients = Clients(_trust(self._files))
        self._changed = asyncio.Event()
        self._watch: FileWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._day: asyncio.TimerHandle | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """For a connection that begins now."""
        return self._context

    def expiries(self) -> Mapping[str, datetime]:
        """When something ends that the server needs: `server`, `ca`, and `revocationList` where there is one.

        Of several certificates in a file it is the first to end.
        """
        files = self._files
        ends = {
            "server": min(certificate.not_valid_after_utc for certificate in files.identity.certificates),
            "ca": min(certificate.not_valid_after_utc for certificate in files.authorities.certificates),
        }
        if files.revocations.until is not None:
            ends["revocationList"] = files.revocations.until
        return ends

    def start(self) -> None:
        """Begin to watch the files."""
        try:
            self._watch = FileWatch(self.reload)
        except OSError as error:
            log.warning("changed certificates are read on SIGHUP only", extra=fields(error=error.strerror))
        self._task = asyncio.create_task(self._follow())
        self._warn_daily()
        self.reload()  # what has changed before it was watched

    async def close(self) -> None:
        """End what `start` has begun."""
        self._clients.close()
        if self._day is not None:
            self._day.cancel()
        if self._watch is not None:
            self._watch.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self) -> None:
        """Read the files again, soon."""
        self._changed.set()

    def join(self, connection: Connection, tls: ssl.SSLObject) -> JobletError | None:
        """Watch over a connection that has shaken hands; or the reason why its client may not be served."""
        if not (chain := verified_chain(tls)):
            return None  # of a client without a certificate, which is served as nobody
        try:
            return self._clients.join(connection, chain, known=tls.context is self._context)
        except ValueError as error:  # OpenSSL has read it, others cannot
            return CertificateRefused("", f"cannot be understood: {error}")

    def leave(self, connection: Connection) -> None:
        """The connection is no more."""
        self._clients.leave(connection)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                await self._read_again()
            except Exception:
                log.exception("certificates cannot be read again")

    async def _read_again(self) -> None:
        if self._watch is not None:
            try:
                self._watch.look_at(await asyncio.to_thread(ways, tls.files(self._security, self._base)))
            except OSError as error:
                log.warning("not all changes of certificates will be noticed", extra=fields(error=error.strerror))
        former = self._files
        self._files, context = await asyncio.to_thread(self._read, former)
        if self._files == former:
            return
        self._context = context
        ended = await self._clients.judge(_trust(self._files))
        ends = {name: f"{end:%Y-%m-%d}" for name, end in self.expiries().items()}
        revoked = len(self._files.revocations.revoked)
        log.info("certificates have changed", extra=fields(**ends, revoked=revoked, connectionsEnded=ended))
        self.on_changed(ends)
        self._warn()

    def _read(self, former: _Files) -> tuple[_Files, ssl.SSLContext]:
        """What the files say now, in a thread: of each that cannot be used what it said before."""
        security, base = self._security, self._base
        identity = _or_former(lambda: _unexpired(tls.read_identity(security, base), former.identity), former.identity)
        authorities = _or_former(lambda: tls.read_authorities(security, base), former.authorities)
        revocations = _or_former(lambda: self._read_revocations(authorities, former), former.revocations)
        return _Files(identity, authorities, revocations), tls.context(security, identity, authorities)

    def _read_revocations(self, authorities: tls.Authorities, former: _Files) -> Revocations:
        expected = former.revocations != Revocations()
        found = tls.read_revocations(self._security, self._base, authorities, expected=expected)
        if authorities == former.authorities and found.number < former.revocations.number:
            raise ConfigError(
                f"security.revocationList: number {found.number} is older than the one in use,"
                f" which has number {former.revocations.number}"
            )
        return found

    def _warn_daily(self) -> None:
        self._warn()
        self._day = asyncio.get_running_loop().call_later(_DAY_SECONDS, self._warn_daily)

    def _warn(self) -> None:
        for level, text in warnings(self.expiries(), datetime.now(UTC)):
            log.log(level, text)


def warnings(expiries: Mapping[str, datetime], now: datetime) -> Iterator[tuple[int, str]]:
    """What ends within 30 days, as a level of logging and a sentence; within 7 days the level is ERROR."""
    for name, end in expiries.items():
        if end - now < _SOON:
            days = (end - now) // timedelta(days=1)
            when = "has expired" if end <= now else f"expires in {days} days" if days > 1 else "expires within two days"
            level = logging.ERROR if end - now < _VERY_SOON else logging.WARNING
            yield level, f"{_NAMES[name]} {when}, on {end:%Y-%m-%d}"


_NAMES = {
    "server": "the server's certificate (security.serverCert)",
    "ca": "an authority's certificate (security.caCert)",
    "revocationList": "the list of revoked certificates (security.revocationList)",
}


def _trust(files: _Files) -> Trust:
    return Trust(files.authorities.certificates, files.revocations)


def _or_former(read: Callable[[], T], former: T) -> T:
    try:
        return read()
    except ConfigError as error:
        log.error("certificates refused, those before stay in use", extra=fields(error=str(error)))
        return former


def _unexpired(identity: tls.Identity, former: tls.Identity) -> tls.Identity:
    own = identity.certificates[0]
    if identity != former and pki.has_expired(own):
        raise ConfigError(f"security.serverCert: expired on {own.not_valid_after_utc:%Y-%m-%d}")
    return identity

"""The clients that are connected, by their certificates: ended when these are not to be trusted any more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol

from joblet.errors import JobletError
from joblet.server.trust import Chain, Trust, unrooted

_LOOK_SECONDS = 3600.0
"""after which the clock, which may have been set, is asked again"""


class Connection(Protocol):
    """What serves a client."""

    def refuse(self, reason: JobletError) -> None:
        """End its calls with this reason, and then itself."""


class _Held:
    __slots__ = ("chain", "connections", "verified")

    def __init__(self, verified: tuple[bytes, ...]) -> None:
        self.verified = verified
        self.chain = Chain.of(verified)
        self.connections: set[Connection] = set()


class Clients:
    """The mutable state is what is trusted, the connections of each chain of certificates, and the next one's end.

    Of those that expire at the same time or never there is one timer: the first to expire sets it.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._held: dict[tuple[bytes, ...], _Held] = {}
        self._of: dict[Connection, _Held] = {}
        self._next: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def trust(self) -> Trust:
        """By what they are judged."""
        return self._trust

    def join(self, connection: Connection, verified: tuple[bytes, ...], *, known: bool) -> JobletError | None:
        """Watch over a new connection; or the reason why its client may not be served.

        `verified` is trust.verified_chain's, and `known` says whether it was verified by the present authorities.
        """
        held = self._held.get(verified) or _Held(verified)
        reason = self._trust.refusal(held.chain)
        if reason is None and not known and not self._trust.is_rooted(held.chain):
            reason = unrooted(held.chain)
        if reason is None:
            held.connections.add(connection)
            self._held[held.verified] = self._of[connection] = held
            self._expect(held.chain.until)
        return reason

    def leave(self, connection: Connection) -> None:
        """Forget a connection, if it is known."""
        if (held := self._of.pop(connection, None)) is not None:
            held.connections.discard(connection)
            if not held.connections:
                del self._held[held.verified]

    async def judge(self, trust: Trust) -> int:
        """Judge by `trust` from now on, and at once all that are connected. Returns how many were refused."""
        former, self._trust = self._trust, trust
        count = self._refuse_untrusted()
        if list(former.authorities) != list(trust.authorities):
            present = list(self._held.values())
            # A signature takes a tenth of a millisecond to verify, and there may be thousands.
            rooted = await asyncio.to_thread(lambda: [trust.is_rooted(held.chain) for held in present])
            for held, holds in zip(present, rooted, strict=True):
                if not holds:
                    count += self._refuse(held, unrooted(held.chain))
        return count

    def close(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _refuse_untrusted(self) -> int:
        count, now = 0, datetime.now(UTC)
        for held in list(self._held.values()):
            if reason := self._trust.refusal(held.chain, now):
                count += self._refuse(held, reason)
        return count

    def _refuse(self, held: _Held, reason: JobletError) -> int:
        connections, held.connections = held.connections, set()
        if self._held.get(held.verified) is held:
            del self._held[held.verified]
        for connection in connections:
            del self._of[connection]
            connection.refuse(reason)
        return len(connections)

    def _expect(self, until: datetime) -> None:
        """Be called when the first certificate expires."""
        if self._next is not None and self._next <= until:
            return
        self.close()
        self._next = until
        delay = (until - datetime.now(UTC)) / timedelta(seconds=1)
        self._timer = asyncio.get_running_loop().call_later(min(max(delay, 0.001), _LOOK_SECONDS), self._on_time)

    def _on_time(self) -> None:
        self._next = None
        self._refuse_untrusted()
        if self._held:
            self._expect(min(held.chain.until for held in self._held.values()))

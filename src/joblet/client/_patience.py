"""Waiting for a server that has gone: that it is restarted under a caller is no reason to give up."""

from __future__ import annotations

import asyncio
import random

from joblet.client.errors import (
    CertificateRejected,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    JobletError,
    Unavailable,
)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
"""seconds between two tries"""


class Patience:
    """How long one caller tries to reach its server again. The mutable state is since when the server is gone."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._reached = False
        self._gone_since: float | None = None
        self._pause = _FIRST_PAUSE

    def renew(self) -> None:
        """The server has answered."""
        self._reached = True
        self._gone_since = None
        self._pause = _FIRST_PAUSE

    async def wait(self, error: JobletError) -> None:
        """Let some time pass before the next try.

        Raises `error` when another try is of no use, ConnectionLost when the server has been gone for too long.
        """
        if not self._seconds or not self._passes(error):
            raise error
        now = asyncio.get_running_loop().time()
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since >= self._seconds:
            raise ConnectionLost(f"{error} (tried again for {self._seconds:g} s)") from error
        # Followers that lost their server together shall not come back together.
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _passes(self, error: JobletError) -> bool:
        """Whether it may be otherwise soon. A server that has never answered may not be there at all."""
        if isinstance(error, ConnectionLost | Unavailable | DeadlineExceeded):
            return True
        known = self._reached or self._gone_since is not None
        return known and isinstance(error, ConnectionFailed) and not isinstance(error, CertificateRejected)

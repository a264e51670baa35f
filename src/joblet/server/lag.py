"""How late the event loop is."""

from __future__ import annotations

import asyncio

from joblet.measures import QUICK, Histogram

_SECONDS = 1.0
"""between two looks"""


class Lag:
    """A timer that sees how late it goes off. The mutable state is that timer, and what it has seen."""

    def __init__(self) -> None:
        self.seconds = Histogram(QUICK)
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._set()

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _set(self) -> None:
        self._due = self._loop.time() + _SECONDS
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self.seconds.observe(max(0.0, self._loop.time() - self._due))
        self._set()

"""Ranges of host user and group ids: one for each live job, never two jobs on one."""

from __future__ import annotations

import secrets
from collections import deque

COUNT = 65536
"""ids in a range"""


class IdRanges:
    """The mutable state is the free ranges of the pool, the longest unused first, and what lives outside the pool.

    A job found again may have a range of another pool, from before the configuration changed.
    """

    def __init__(self, base: int, ranges: int) -> None:
        """A pool of `ranges` ranges of COUNT ids, the first from `base` on.

        Which is given out first is left to chance: another server of this host may have the same pool.
        """
        self._pool = range(base, base + ranges * COUNT, COUNT)
        self._free = deque(self._pool)
        self._free.rotate(secrets.randbelow(ranges))
        self._foreign: list[int] = []

    def take(self) -> int:
        """First id of a free range. Raises IndexError when every range is in use."""
        for _ in range(len(self._free)):
            first = self._free.popleft()
            if all(abs(first - other) >= COUNT for other in self._foreign):
                return first
            self._free.append(first)
        raise IndexError("every range of user ids is in use")

    def claim(self, base: int) -> None:
        """Mark the range of a job found again as in use."""
        if base in self._free:
            self._free.remove(base)
        else:
            self._foreign.append(base)

    def give_back(self, base: int) -> None:
        """A job has ended and nothing of it is left."""
        if base in self._foreign:
            self._foreign.remove(base)
        elif base in self._pool:
            self._free.append(base)

"""Ranges of host user and group ids: one for each live job, never two jobs on one."""

from __future__ import annotations

from collections import deque

BASE = 0x70000000
"""above what systemd gives to its containers, below the signed 32-bit end"""

COUNT = 65536
"""ids in a range"""

_RANGES = 4096


class IdRanges:
    """The mutable state is the free ranges; the longest unused is given out next."""

    def __init__(self) -> None:
        self._free = deque(BASE + index * COUNT for index in range(_RANGES))

    def take(self) -> int:
        """First id of a free range. Raises IndexError when every range is in use."""
        return self._free.popleft()

    def claim(self, base: int) -> None:
        """Mark the range of a job found again as in use. One that is not of the pool needs no marking."""
        if base in self._free:
            self._free.remove(base)

    def give_back(self, base: int) -> None:
        if BASE <= base < BASE + _RANGES * COUNT:
            self._free.append(base)

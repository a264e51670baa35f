"""The one door to time. Instants are nanoseconds since the epoch (CLOCK_REALTIME)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")
_LONGEST = 64
"""characters of a duration"""


def now_ns() -> int:
    """The present instant."""
    return time.time_ns()


def boot_id() -> str:
    """Names the time since the host was started (proc_sys_kernel(5)). Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class SteadyClock:
    """The wall clock for what is removed by age: a clock that has been set is believed after a while only.

    One set by mistake, or from 1970 to the present, would make all that there is look old at once. What it is compared
    with is the time since boot, which nobody sets and which goes on while the host sleeps (CLOCK_BOOTTIME).
    """

    _SET = 60 * 1_000_000_000
    """nanoseconds by which it differs when it was set; less is correction"""
    _BELIEVED = 86_400 * 1_000_000_000
    """nanoseconds after which it is believed"""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._new_offset = self._offset
        self._since = 0
        self.on_set: Callable[[float], None] = lambda seconds: None
        """told when it was set, and by how much"""

    def now_ns(self) -> int:
        """The present instant; by the clock as it was, for a day after it was set."""
        return self._read(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _read(self, wall: int, boot: int) -> int:
        offset = wall - boot
        if abs(offset - self._offset) < self._SET:
            self._offset = self._new_offset = offset
        elif abs(offset - self._new_offset) >= self._SET:
            self._new_offset, self._since = offset, boot
            self.on_set((offset - self._offset) / 1e9)
        elif boot - self._since >= self._BELIEVED:
            self._offset = offset
        return boot + self._offset


def rfc3339(instant_ns: int | None) -> str:
    """`2024-01-15T10:30:00Z`, or the empty string for an instant not yet known."""
    if instant_ns is None:
        return ""
    return datetime.fromtimestamp(instant_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `5s`, `1h30m` or `250ms`.

    Raises ValueError when the text is not a sequence of numbers with a unit, or is longer than 64 characters.
    """
    parts = _PART.findall(text) if len(text) <= _LONGEST else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        raise ValueError(f'not a duration: "{shown}" (write for example "5s", "1h30m" or "250ms")')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back to the millisecond: `1h`, `1m30s`, `250ms`."""
    left = round(seconds * 1000)
    text = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"

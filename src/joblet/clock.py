"""The one door to time. Instants are nanoseconds since the epoch (CLOCK_REALTIME)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def now_ns() -> int:
    """The present instant."""
    return time.time_ns()


def rfc3339(instant_ns: int | None) -> str:
    """`2024-01-15T10:30:00Z`, or the empty string for an instant not yet known."""
    if instant_ns is None:
        return ""
    return datetime.fromtimestamp(instant_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `5s`, `1h30m` or `250ms`.

    Raises ValueError when the text is not a sequence of numbers with a unit.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'not a duration: "{text}" (write for example "5s", "1h30m" or "250ms")')
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

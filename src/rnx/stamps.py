"""Output with a time in front of each line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_UNKNOWN = b"- "


class Stamper:
    """Puts the time at which a line's first byte came in front of the line.

    The mutable state is whether the next byte begins a line.
    """

    def __init__(self) -> None:
        self._at_start = True

    def feed(self, payload: bytes, times: Sequence[tuple[int, int]]) -> bytes:
        """The payload with its stamps; `times` are places in it with the time of the bytes from there on, in ns."""
        if not times or times[0][0] > 0:
            pieces = [self._stamp(payload[: times[0][0]] if times else payload, _UNKNOWN)]
        else:
            pieces = []
        ends = [*(place for place, _ in times[1:]), len(payload)]
        pieces += [self._stamp(payload[place:end], text(at)) for (place, at), end in zip(times, ends, strict=False)]
        return b"".join(pieces)

    def _stamp(self, part: bytes, stamp: bytes) -> bytes:
        if not part:
            return b""
        begun = stamp if self._at_start else b""
        self._at_start = part.endswith(b"\n")
        inner = part[:-1] if self._at_start else part
        return begun + inner.replace(b"\n", b"\n" + stamp) + part[len(inner) :]


def text(at: int) -> bytes:
    """`2024-01-15T10:30:00.250Z ` of an instant in nanoseconds since the epoch, or `- ` of one beyond the calendar."""
    try:
        second = datetime.fromtimestamp(at // 1_000_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return _UNKNOWN
    return f"{second:%Y-%m-%dT%H:%M:%S}.{at // 1_000_000 % 1000:03d}Z ".encode()

"""The lines of a log that match a pattern."""

from __future__ import annotations

from joblet.logs.pattern import Pattern

LONGEST = 65536
"""bytes of a line that are kept until its end comes; longer ones are matched, and given, in pieces"""


class Grep:
    """Picks lines from pieces of a log, given in order. The mutable state is the line that has no end yet."""

    def __init__(self, pattern: Pattern, start: int) -> None:
        """Of bytes from `start` on."""
        self._pattern = pattern
        self._rest = b""
        self.done = start
        """the log's bytes up to here need not be seen again"""

    def passes_over(self, payload: bytes) -> bool:
        """Whether nothing matches yet with this piece, and to feed it takes microseconds."""
        return bool(self._pattern.needle) and self._pattern.needle not in self._rest + payload

    def feed(self, payload: bytes) -> list[tuple[int, bytes]]:
        """Runs of matching lines, each with its offset in the log, of what is whole with this piece."""
        whole = self._rest + payload
        cut = whole.rfind(b"\n") + 1
        if len(whole) - cut > LONGEST:
            cut = len(whole)
        self._rest = whole[cut:]
        return self._pick(whole[:cut])

    def end(self) -> list[tuple[int, bytes]]:
        """What is left: a last line without its end."""
        rest, self._rest = self._rest, b""
        return self._pick(rest)

    def _pick(self, whole: bytes) -> list[tuple[int, bytes]]:
        needle, literal = self._pattern.needle, self._pattern.literal is not None
        spans: list[tuple[int, int]] = []
        position = 0
        while position < len(whole):
            hit = whole.find(needle, position)
            if hit < 0:
                break
            begin = max(position, whole.rfind(b"\n", position, hit) + 1)
            position = whole.find(b"\n", hit) + 1 or len(whole)
            line_end = position - 1 if whole[position - 1] == ord("\n") else position
            if literal or self._pattern.matches(whole[begin:line_end]):
                if spans and spans[-1][1] == begin:
                    begin = spans.pop()[0]
                spans.append((begin, position))
        found = [(self.done + begin, whole[begin:end]) for begin, end in spans]
        self.done += len(whole)
        return found

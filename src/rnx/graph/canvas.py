"""Characters on a grid, and lines that meet, cross and turn on it."""

from __future__ import annotations

from rnx.columns import cells

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    _UP | _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _UP: "│",
    _DOWN: "│",
    _LEFT: "─",
    _RIGHT: "─",
    _DOWN | _RIGHT: "┌",
    _DOWN | _LEFT: "┐",
    _UP | _RIGHT: "└",
    _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _DOWN | _LEFT | _RIGHT: "┬",
    _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}


class Canvas:
    """The mutable state is what stands where: text, and the lines of each net (which join their own only)."""

    def __init__(self) -> None:
        self._text: dict[tuple[int, int], str] = {}
        self._lines: dict[tuple[int, int], dict[int, int]] = {}

    def write(self, row: int, column: int, text: str) -> None:
        """Put a text over whatever is there."""
        for offset, cell in enumerate(cells(text)):
            self._text[row, column + offset] = cell

    def down(self, net: int, column: int, top: int, bottom: int) -> None:
        """A vertical line, both ends included; a line of one row is a stub to both sides."""
        for row in range(top, bottom + 1):
            self._add(net, row, column, (_UP if row > top else 0) | (_DOWN if row < bottom else 0))

    def along(self, net: int, row: int, left: int, right: int) -> None:
        """A horizontal line, both ends included."""
        for column in range(left, right + 1):
            self._add(net, row, column, (_LEFT if column > left else 0) | (_RIGHT if column < right else 0))

    def lines(self) -> list[str]:
        """What it looks like, without blanks at the ends of lines."""
        drawn = {place: _character(nets) for place, nets in self._lines.items()} | self._text
        if not drawn:
            return []
        rows = max(row for row, _ in drawn) + 1
        columns = max(column for _, column in drawn) + 1
        return ["".join(drawn.get((row, column), " ") for column in range(columns)).rstrip() for row in range(rows)]

    def _add(self, net: int, row: int, column: int, ways: int) -> None:
        nets = self._lines.setdefault((row, column), {})
        nets[net] = nets.get(net, 0) | ways


def _character(nets: dict[int, int]) -> str:
    if len(nets) > 1 and all(ways in (_UP | _DOWN, _LEFT | _RIGHT) for ways in nets.values()):
        return "│"  # one passes over the others
    ways = 0
    for each in nets.values():
        ways |= each
    return _LINES.get(ways, " ")

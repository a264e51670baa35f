"""`rnx top` on a terminal: a table that is drawn over at each sample."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rnx.region import Region
from rnx.usage_text import COMMAND, HEADINGS, TEXTS, Line, summary

_FRAME = 4
"""lines beside those of jobs: headings, summary, cursor, and one to spare"""
_BUSY, _FULL = 0.8, 0.95
"""shares of a limit from which on a number has a colour"""


class Screen(Region):
    """A page on the terminal."""

    def draw(self, lines: Sequence[Line]) -> None:
        """Draw anew."""
        self.show(picture(self.console, lines))


def picture(console: Console, lines: Sequence[Line]) -> Group:
    """The first of the jobs, as many as the terminal is high, and what all use together."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for place, heading in enumerate(HEADINGS):
        table.add_column(
            heading,
            justify="left" if place < TEXTS else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if place == COMMAND else None,  # it gives way when there is no room
        )
    shown = lines[: max(1, console.height - _FRAME)]
    for line in shown:
        cells = [Text(text) for text in line.texts()]
        cells[TEXTS].stylize("yellow" if line.job.paused_by else _style(line.cpu or 0, line.job.max_cpu))
        cells[TEXTS + 1].stylize(_style(line.job.memory_bytes or 0, line.job.max_memory << 20))
        table.add_row(*cells)
    hidden = f" ({len(lines) - len(shown)} more)" if len(shown) < len(lines) else ""
    below = Text(f"{summary(lines)}{hidden}; Ctrl-C ends the view", style="dim", no_wrap=True, overflow="ellipsis")
    return Group(table, below)


def _style(used: float, limit: int) -> str:
    share = used / limit if limit else 0.0
    return "bold red" if share >= _FULL else "yellow" if share >= _BUSY else ""

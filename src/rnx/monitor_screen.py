"""`rnx monitor` on a terminal: a page that is drawn over at each sample."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rnx.system_text import parts, title

if TYPE_CHECKING:
    from joblet.client import SystemMetrics, SystemStatus


class Screen:
    """A region of the terminal, which is as it was when the block is left, below what was drawn last."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def draw(self, status: SystemStatus, sample: SystemMetrics, before: SystemMetrics | None) -> None:
        """Draw anew."""
        self._live.update(picture(status, sample, before), refresh=True)


def picture(status: SystemStatus, sample: SystemMetrics, before: SystemMetrics | None) -> Group:
    """All that there is to tell."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for heading, text in parts(status, sample, before):
        bad = heading == "FAULT" or "DAMAGED" in text
        table.add_row(Text(heading, style="bold"), Text(text, style="bold red" if bad else ""))
    below = Text(f"as of {sample.time:%H:%M:%S}Z; Ctrl-C ends the view", style="dim", no_wrap=True, overflow="ellipsis")
    return Group(Text(title(status, sample.time), no_wrap=True, overflow="ellipsis"), Text(), table, below)

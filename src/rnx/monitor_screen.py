"""`rnx monitor` on a terminal: a page that is drawn over at each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rnx.region import Region
from rnx.system_text import parts, title

if TYPE_CHECKING:
    from joblet.client import SystemMetrics, SystemStatus


class Screen(Region):
    """A page on the terminal."""

    def draw(self, status: SystemStatus, sample: SystemMetrics, before: SystemMetrics | None) -> None:
        """Draw anew."""
        self.show(picture(status, sample, before))


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

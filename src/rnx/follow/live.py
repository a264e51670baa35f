"""The picture of a watched workflow, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from joblet.command_line import one_line
from rnx.columns import cells, cut, padded
from rnx.follow.view import BUSY, ENDED, JobView, View, selected, summary

_STYLES = {
    "COMPLETED": "green",
    "FAILED": "bold red",
    "STOPPED": "yellow",
    "CANCELED": "bright_black",
    "RUNNING": "bold blue",
    "INITIALIZING": "blue",
}
_MARKS = {"COMPLETED": "✓", "FAILED": "✗", "STOPPED": "■", "CANCELED": "-", "RUNNING": "●", "INITIALIZING": "●"}
_PLAIN_MARKS = {"COMPLETED": "+", "FAILED": "x", "STOPPED": "!", "CANCELED": "-", "RUNNING": "*", "INITIALIZING": "*"}
_FRAME = 4
"""lines beside those of jobs: title, progress, summary, cursor"""
_NAME = 40
"""columns that a name takes at most"""
_LEAST = 3
"""lines for jobs, however low the terminal"""


class Picture:
    """A region of the terminal that is drawn over, and lines above it that stay."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=False)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def begin(self) -> None:
        """Take the region."""
        self._live.start()

    def draw(self, view: View, now: datetime) -> None:
        """Draw anew."""
        self._live.update(Frame(view, now), refresh=True)

    def lines(self, output: Iterable[tuple[str, str]]) -> None:
        """Put lines of jobs' output above: the name of each one's job, and the text."""
        above = Text()
        for name, line in output:
            above.append("\n" if above else "").append(f"{one_line(name)} | ", style="cyan").append(line)
        self._console.print(above, soft_wrap=True)

    def end(self, view: View | None, now: datetime) -> None:
        """Draw for the last time; what is drawn stays."""
        if view is not None:
            self._live.update(Frame(view, now), refresh=True)
        self._live.stop()


class Frame:
    """A view at an instant, as tall as the terminal at most."""

    def __init__(self, view: View, now: datetime) -> None:
        self._view = view
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        jobs = selected(self._view, max(_LEAST, console.height - _FRAME))
        marks = _MARKS if "utf" in console.encoding else _PLAIN_MARKS
        for line in (self._title(), *self._rows(jobs, marks)):
            line.no_wrap, line.overflow = True, "ellipsis"
            yield line
        yield from self._progress(len(jobs), min(40, options.max_width // 2))

    def _title(self) -> Text:
        view = self._view
        title = Text.assemble((one_line(view.title), "bold"), f"  workflow {one_line(view.workflow_id)}  ")
        title.append(one_line(view.status), style=_STYLES.get(view.status))
        elapsed = view.seconds(self._now)
        title.append("" if elapsed is None else f"  {duration(elapsed)}")
        return title.append(f"  {one_line(view.reason)}" if view.reason else "")

    def _rows(self, jobs: list[JobView], marks: dict[str, str]) -> Iterator[Text]:
        names = [cut(one_line(job.name), _NAME) for job in jobs]
        widest = max((len(cells(name)) for name in names), default=0)
        for job, name in zip(jobs, names, strict=True):
            took = job.seconds(self._now)
            details = [f"attempt {job.attempt}/{job.max_attempts}" if job.attempt > 1 else ""]
            if job.status not in BUSY and job.status != "COMPLETED":
                details.append(one_line(job.reason))
            row = Text(f"{marks.get(job.status, ' ')} {padded(name, widest)}  ", style=_STYLES.get(job.status, ""))
            row.append(f"{one_line(job.status):<12}")
            row.append(f"{'' if took is None else duration(took):>6}  ", style="default")
            yield row.append("  ".join(detail for detail in details if detail), style="default")

    def _progress(self, shown: int, width: int) -> Iterator[RenderableType]:
        view = self._view
        done = sum(view.counts[status] for status in ENDED)
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_column(no_wrap=True)
        bar.add_column(no_wrap=True, overflow="ellipsis")
        progress = ProgressBar(total=max(1, view.total), completed=done, width=width)
        bar.add_row(progress, f"{done}/{view.total} jobs ended")
        yield bar
        hidden = f" ({view.total - shown} not shown)" if shown < view.total else ""
        yield Text(summary(view) + hidden, no_wrap=True, overflow="ellipsis")


def duration(seconds: float) -> str:
    """`3.4s`, `12m05s`, `2h07m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"

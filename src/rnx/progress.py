"""What is long shows how far it has come: a bar on stderr, on a terminal, once it has taken a second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 1.0
"""seconds until a bar is worth its place, and rich the time that it takes to load"""
_MEGABYTE = 1_000_000


class Bar:
    """Shows the progress of a transfer while the block lasts, and one line of it after a bar that was shown.

    The mutable state is the bar, once there is one, and what has been transferred: by an earlier try, and by now.
    """

    def __init__(self, doing: str, done: str) -> None:
        """What is said with the bar, and in the end, as in `Uploading` and `Uploaded`."""
        self._doing = doing
        self._done = done
        self._began = time.monotonic()
        self._first: int | None = None
        self._bytes = 0
        self._shown: Progress | None = None
        self._task: Any = None
        self._wanted = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is None:
            return
        self._shown.stop()
        self._shown = None
        if kind is None:
            seconds = time.monotonic() - self._began
            speed = (self._bytes - (self._first or 0)) / _MEGABYTE / seconds
            sys.stderr.write(f"{self._done} {self._bytes / _MEGABYTE:.1f} MB in {seconds:.0f}s ({speed:.1f} MB/s)\n")

    def update(self, done: int, total: int) -> None:
        """So many bytes of `total` have been transferred; a total of 0 is not known."""
        if self._first is None:
            self._first = done
        self._bytes = done
        if not self._wanted or (self._shown is None and time.monotonic() - self._began < _PATIENCE):
            return
        if self._shown is None:
            if done == total:
                return
            self._begin(done, total)
        assert self._shown is not None
        self._shown.update(self._task, completed=done, total=total or None)

    def _begin(self, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._shown.add_task(self._doing, total=total or None, completed=done)
        self._shown.start()

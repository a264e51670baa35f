"""Where a watched workflow is shown: as lines, or as a picture of the moment on a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from joblet.command_line import one_line
from rnx.follow.view import View, summary
from rnx.output import Output
from rnx.workflow_text import event_line

if TYPE_CHECKING:
    from joblet.client import Event
    from rnx.follow.live import Picture

_REDRAW = 0.1
"""seconds between two pictures at least"""
_TICK = 1.0
"""seconds between two at most, while something runs: durations grow"""
_MOST_LINES = 500
"""lines of output that wait for the next picture"""


class Screen(Protocol):
    """To be used in `async with`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, view: View) -> None:
        """What is shown from now on; it may change."""

    async def tell(self, event: Event) -> None:
        """Something has happened; the view reflects it."""

    async def log(self, name: str, line: str) -> None:
        """A line of a job's output."""


class Lines:
    """One line for each event, to anything but a terminal."""

    def __init__(self) -> None:
        self._output = Output(sys.stdout.fileno())
        self._view: View | None = None

    async def __aenter__(self) -> Self:
        await self._output.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._view is not None:
            await self._write(ending(self._view))
        await self._output.__aexit__(kind, error, trace)

    def show(self, view: View) -> None:
        self._view = view

    async def tell(self, event: Event) -> None:
        await self._write(event_line(event))

    async def log(self, name: str, line: str) -> None:
        await self._write(f"{one_line(name)} | {line}\n")

    async def _write(self, text: str) -> None:
        await self._output.write(text.encode("utf-8", "backslashreplace"))


class Live:
    """A picture that is drawn again when something happens, and once a second while something runs.

    The mutable state is what is shown, whether it has changed since it was drawn, and the output since then.
    """

    def __init__(self) -> None:
        from rnx.follow.live import Picture

        self._picture: Picture = Picture()
        self._view: View | None = None
        self._changed = asyncio.Event()
        self._drawing: asyncio.Task[None] | None = None
        self._lines: list[tuple[str, str]] = []

    async def __aenter__(self) -> Self:
        self._picture.begin()
        self._drawing = asyncio.create_task(self._draw())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._drawing is not None
        self._drawing.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._drawing
        finally:
            self._flush()
            self._picture.end(self._view, _now())

    def show(self, view: View) -> None:
        self._view = view
        self._changed.set()

    async def tell(self, event: Event) -> None:
        self._changed.set()

    async def log(self, name: str, line: str) -> None:
        self._lines.append((name, line))
        self._changed.set()
        if len(self._lines) >= _MOST_LINES:
            self._flush()

    async def _draw(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK if self._is_moving() else None):
                    await self._changed.wait()
            self._changed.clear()
            self._flush()
            if self._view is not None:
                self._picture.draw(self._view, _now())
            await asyncio.sleep(_REDRAW)

    def _flush(self) -> None:
        if self._lines:
            self._picture.lines(self._lines)
            self._lines.clear()

    def _is_moving(self) -> bool:
        return self._view is not None and self._view.started is not None and self._view.ended is None


def ending(view: View) -> str:
    """How it has ended, in a line: `Workflow 1 FAILED (3 completed, 1 failed): train is FAILED`."""
    text = f"Workflow {view.workflow_id} {view.status} ({summary(view)})"
    return one_line(text + (f": {view.reason}" if view.reason else "")) + "\n"


def open_screen() -> Screen:
    """A live one on a terminal that can be drawn on."""
    return Live() if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else Lines()


def _now() -> datetime:
    return datetime.now(UTC)

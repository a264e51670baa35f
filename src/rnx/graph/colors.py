"""The colours of the states."""

from __future__ import annotations

from typing import NamedTuple


class Colors(NamedTuple):
    """Of a box, on a light background and on a dark one."""

    fill: str
    line: str
    text: str
    dark_fill: str
    dark_line: str
    dark_text: str


_BUSY = Colors("#ddf4ff", "#0969da", "#0a3069", "#0c2d4d", "#58a6ff", "#cae8ff")
_WAITING = Colors("#f6f8fa", "#818b98", "#1f2328", "#21262d", "#8b949e", "#e6edf3")

COLORS = {
    "PENDING": _WAITING,
    "SCHEDULED": _WAITING,
    "INITIALIZING": _BUSY,
    "RUNNING": _BUSY,
    "COMPLETED": Colors("#dafbe1", "#1a7f37", "#0f401b", "#12361f", "#3fb950", "#c8f2d2"),
    "FAILED": Colors("#ffebe9", "#cf222e", "#6e0f17", "#451418", "#f85149", "#ffdcd7"),
    "STOPPED": Colors("#fff1e5", "#bc4c00", "#5c2500", "#43240b", "#f0883e", "#ffdfb6"),
    "CANCELED": Colors("#eaeef2", "#59636e", "#393f46", "#2d333b", "#9198a1", "#c9d1d9"),
}
"""by status; a box without one of these is PENDING's"""

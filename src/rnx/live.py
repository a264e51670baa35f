"""What changes all the time, shown: drawn over on a terminal, or as text that is printed on and on."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import ParamSpec

from rnx.output import Output

P = ParamSpec("P")


def is_drawn(*, as_json: bool, once: bool) -> bool:
    """Whether stdout is a terminal that can be drawn over, and nothing else is asked for."""
    return not (as_json or once) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def drawing(draw: Callable[P, None]) -> Callable[P, Awaitable[None]]:
    """Shows by drawing, as `printing` does by text."""

    async def show(*args: P.args, **kwargs: P.kwargs) -> None:
        draw(*args, **kwargs)

    return show


async def printing(stack: AsyncExitStack, text: Callable[P, str], headings: str = "") -> Callable[P, Awaitable[None]]:
    """Prints the text of what it is called with, the first below the headings. The reader may be slow, or leave."""
    output = await stack.enter_async_context(Output(sys.stdout.fileno()))
    above = headings

    async def show(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal above
        await output.write((above + text(*args, **kwargs)).encode("utf-8", "backslashreplace"))
        above = ""

    return show

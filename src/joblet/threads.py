"""Blocking work in threads, for callers that may be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finish(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call in a thread gives. It has ended when this has, also when this is cancelled.

    No thread can be stopped, and what it works on may be somebody else's next.
    """
    working = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.wait({working})
        raise


async def acquire(release: Callable[[T], object], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call in a thread has opened. When this is cancelled it is released, as soon as it is there."""
    opening = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda opened: _release(release, opened))
        raise


def _release(release: Callable[[T], object], opened: asyncio.Future[T]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        release(opened.result())

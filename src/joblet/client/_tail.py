"""The end of a log that may be long: found by asking whether there is a byte at an offset, not by reading it all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from joblet.client.client import Client


async def tail(client: Client, job_id: str, size: int) -> bytes:
    """The last `size` bytes of a log as of now, or somewhat less than what is there by the end of the search."""
    first = await _read(client, job_id, 0, 2 * size)
    if len(first) < 2 * size:
        return first[-size:]
    there, end = len(first) - 1, 2 * len(first)
    while await _read(client, job_id, end, 1):
        there, end = end, 2 * end
    while end - there > size:  # a byte at `there`, none at `end`
        middle = (there + end) // 2
        if await _read(client, job_id, middle, 1):
            there = middle
        else:
            end = middle
    return (await _read(client, job_id, max(0, there + 1 - size), 3 * size))[-size:]


async def _read(client: Client, job_id: str, offset: int, most: int) -> bytes:
    """At most so many bytes from there on; fewer are all that there are now."""
    data = bytearray()
    stream = cast("AsyncGenerator[bytes]", client.logs(job_id, follow=False, offset=offset))
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) >= most:
                break
    return bytes(data[:most])

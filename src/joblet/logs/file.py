"""Reading a job's log by byte cursor, without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 65536
"""bytes read, and sent, at a time"""

FARTHEST = 2**63 - 1
"""where no file reaches; the kernel refuses to read past it"""


class LogFile:
    """An open log. A cursor is a byte offset; reading at the end gives nothing, which is not an error."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when the job has written no log yet."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    async def read(self, offset: int, most: int = CHUNK) -> bytes:
        """Up to `most` bytes from `offset`.

        What is in the page cache is read at once, what must come from disk in a thread (RWF_NOWAIT, preadv2(2)).
        """
        buffer = bytearray(min(most, FARTHEST - offset))
        try:
            count = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a file system without RWF_NOWAIT
            return await asyncio.to_thread(os.pread, self._fd, len(buffer), offset)
        return bytes(memoryview(buffer)[:count])

    def size(self) -> int:
        """Bytes in the log now."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""How a job is to be stopped, told to its monitor by a file in the job's directory (shim/PROTOCOL.md)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from joblet.job import Stop

_NAME = "stop"
_FRESH = ".stop"
_TEXT = re.compile(rb"signal=\d{1,2}\ngrace_ms=(\d{1,10})\n")


def write(directory: Path, stop: Stop, grace_ms: int) -> None:
    """Have the monitor find it from now on, with no more than this grace. Blocks for an fsync. Raises OSError.

    Nothing is written where the monitor would do the same anyway: on a full disk a job can be stopped still.
    """
    path = directory / _NAME
    try:
        present = path.read_bytes()
    except FileNotFoundError:
        if stop == Stop():
            return
        present = b""
    if found := _TEXT.fullmatch(present):
        grace_ms = min(grace_ms, int(found[1]))
    text = f"signal={int(stop.signal)}\ngrace_ms={grace_ms}\n".encode("ascii")
    if present == text:
        return
    fd = os.open(directory / _FRESH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(directory / _FRESH, path)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

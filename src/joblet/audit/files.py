"""The files of an audit log: the one that is written, and those before it, named by the number of their first line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from joblet.audit.chain import MOST

_DIGITS = 12
"""so that names sort as numbers do"""


def former(path: Path, first: int) -> Path:
    """Where the file that begins with this line lies once it is written no more."""
    return path.with_name(f"{path.name}.{first:0{_DIGITS}d}")


def damaged(path: Path, number: int) -> Path:
    """Where a file without a first line is kept when line `number` begins another one."""
    return path.with_name(f"{path.name}.damaged-{number}")


def fresh(path: Path) -> Path:
    """Where a new file is made, to be put in its place with its first line."""
    return path.with_name(f".{path.name}.new")


def formers(path: Path) -> list[tuple[int, Path]]:
    """The former files with the numbers of their first lines, oldest first. Raises OSError."""
    name = re.compile(re.escape(path.name) + rf"\.([0-9]{{{_DIGITS},18}})")
    found = ((name.fullmatch(entry.name), entry) for entry in path.parent.iterdir())
    return sorted((int(match[1]), entry) for match, entry in found if match)


def every(path: Path) -> list[Path]:
    """All files that there are, oldest first. Raises OSError."""
    return [*(entry for _, entry in formers(path)), *([path] if path.exists() else [])]


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines with their newlines; the last may have none, and none is longer than one may be. Raises OSError."""
    while raw := file.readline(MOST):
        yield raw

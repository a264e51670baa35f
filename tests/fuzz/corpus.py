"""The inputs that are kept: those written by hand, or once a finding, in a file each, and others that were found."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
_FOUND = "found.base64"
"""of each parser: an input a line, the shortest first"""
_LONGEST = 200
"""bytes of one that fuzzing has found"""
_MOST = 100
"""of them"""


def files(name: str) -> list[Path]:
    """Those of a parser with a file each."""
    return sorted(path for path in (FOLDER / name).iterdir() if path.name != _FOUND)


def found(name: str) -> list[bytes]:
    """Those that fuzzing has found for a parser."""
    path = FOLDER / name / _FOUND
    return [b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def kept(name: str) -> list[bytes]:
    """All of a parser."""
    return [path.read_bytes() for path in files(name)] + found(name)


def add(name: str, inputs: set[bytes]) -> None:
    """Take those that are short, as many as there is room for."""
    short = {data for data in inputs if len(data) <= _LONGEST} - {path.read_bytes() for path in files(name)}
    chosen = sorted(short | set(found(name)), key=lambda data: (len(data), data))[-_MOST:]
    lines = "".join(f"{b64encode(data).decode()}\n" for data in chosen)
    (FOLDER / name / _FOUND).write_text(lines)

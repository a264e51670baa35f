"""Looks for what was changed in an audit log: the first line that is not as it was written, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from joblet import clock
from joblet.audit import files, head
from joblet.audit.chain import MOST, Line, parse
from joblet.audit.head import Head

_ATTEMPTS = 100
"""at opening files while the server begins new ones"""


class Changed(Exception):
    """The log is not as it was written; the message names file, line and how."""


@dataclass(slots=True)
class Verified:
    """What was found intact, as it is found."""

    first: int = 0
    """number of the first line; 0 for none"""
    last: int = 0
    hash: str = ""
    """of the last line"""
    files: int = 0
    oldest: int = 0
    """the first line that is still to be there, by the newest file"""
    unfinished: int = 0
    """bytes of a line that has no end: it is being written, or the server was killed meanwhile"""
    lost: list[str] = field(default_factory=list)
    """what power failures took, as the server found it"""
    expected: dict[int, str] = field(default_factory=dict)
    """hashes by number that somebody knows of, and that have not been met"""


def verify(names: Sequence[Path], expected: Iterable[tuple[int, str]] = ()) -> Verified:
    """Check these files, the oldest first, and that they hold the lines that are expected, by number and hash.

    Raises Changed, OSError.
    """
    with ExitStack() as stack:
        return _verify([(name, stack.enter_context(name.open("rb"))) for name in names], expected)


def verify_log(path: Path, expected: Iterable[tuple[int, str]] = ()) -> Verified:
    """Check all files of the log at `path`, which may be written meanwhile. Raises Changed, OSError."""
    for _ in range(_ATTEMPTS):
        with ExitStack() as stack:
            names = files.every(path)
            try:
                opened = [(name, stack.enter_context(name.open("rb"))) for name in names]
            except FileNotFoundError:
                continue
            if names == files.every(path):
                return _verify(opened, expected)
    raise Changed(f"{path}: its files do not stay as they are")


def verify_server(path: Path, state_dir: Path, expected: Iterable[tuple[int, str]] = ()) -> Verified:
    """Check the log at `path` of the server with this state directory, which may run, from its first line to its last.

    Raises Changed, OSError.
    """
    mark, fault = head.read(state_dir)
    boot = clock.boot_id()
    marks = mark.marks(boot) if mark is not None else set()
    found = verify_log(path, [*expected, *((number, digest) for number, digest in marks if number)])
    if fault:
        raise Changed(fault)
    if mark is None and found.last:
        raise Changed(f"{path}: nothing tells where the log ends: its head is missing")
    if mark is not None:
        needed = mark.n if mark.boot == boot else mark.flushed
        if found.last < needed:
            raise Changed(f"{path}: cut: lines {found.last + 1} to {needed} are missing at the end")
    _check_nothing_after(path, found, head.read(state_dir)[0], boot)
    return found


def _check_nothing_after(path: Path, found: Verified, mark: Head | None, boot: str) -> None:
    """By the head as it is after the files were read."""
    if mark is None or (mark.boot != boot and not mark.closed):
        return
    if found.last > mark.n + (not mark.closed) or (mark.closed and found.unfinished):
        raise Changed(f"{path}: added: what comes after line {mark.n} was not written by the server")


def _verify(opened: Sequence[tuple[Path, BinaryIO]], expected: Iterable[tuple[int, str]]) -> Verified:
    found = Verified(expected=dict(expected))
    for path, file in opened:
        if found.unfinished:
            raise Changed(f"{path}: the file before it has no end")
        _verify_file(path, file, found, [each for _, each in opened])
    if found.oldest and found.first > found.oldest:
        raise Changed(f"missing: lines {found.oldest} to {found.first - 1}, at the beginning")
    for number, digest in found.expected.items():
        if number <= found.last and number >= found.first:
            raise Changed(f"line {number} does not have the hash {digest}")
    return found


def _verify_file(path: Path, file: BinaryIO, found: Verified, every: Sequence[BinaryIO]) -> None:
    for place, raw in enumerate(files.lines(file), 1):
        where = f"{path} line {place}"
        if not raw.endswith(b"\n") and len(raw) < MOST:
            if place == 1 and found.files:
                raise Changed(f"{where}: the file has no first line")
            found.unfinished = len(raw)
            return
        line = parse(raw)
        if line is None:
            raise Changed(f"{where}: edited: no line of an audit log")
        if place == 1:
            _open(where, line, found)
        if found.last and line.number != found.last + 1:
            raise Changed(f"{where}: {_misplaced(line, found.last + 1, file, every)}")
        if not line.follows(found.hash):
            raise Changed(f"{where}: edited: line {line.number} does not have the hash of what it says")
        found.last, found.hash = line.number, line.hash
        if found.expected and found.expected.get(line.number) == line.hash:
            del found.expected[line.number]
        if b'"lost":' in line.body and (lost := line.values().get("lost")):
            found.lost.append(f"line {line.number} tells of {lost} lines that a power failure took")


def _open(where: str, line: Line, found: Verified) -> None:
    """The first line of a file."""
    try:
        values = line.values()
        previous, oldest = str(values["previous"]), int(str(values["oldest"]))
    except (ValueError, KeyError):
        raise Changed(f"{where}: missing: the file does not begin with its first line") from None
    if fault := values.get("fault"):
        raise Changed(f"{where}: the server found the log changed when it started: {fault}")
    if not found.files:
        found.first, found.hash = line.number, previous
    elif line.number > found.last + 1:
        raise Changed(f"{where}: missing: lines {found.last + 1} to {line.number - 1}")
    found.files += 1
    found.oldest = oldest


def _misplaced(line: Line, wanted: int, file: BinaryIO, every: Iterable[BinaryIO]) -> str:
    if line.number < wanted:
        return f"reordered: line {line.number} comes after line {wanted - 1}, or again"
    for rest in _from(file, every):
        if any(other is not None and other.number == wanted for other in map(parse, files.lines(rest))):
            return f"reordered: line {line.number} comes before line {wanted}"
    return f"missing: lines {wanted} to {line.number - 1}"


def _from(file: BinaryIO, every: Iterable[BinaryIO]) -> Iterator[BinaryIO]:
    """This file and those after it, each where it has been read to."""
    begun = False
    for each in every:
        begun = begun or each is file
        if begun:
            yield each

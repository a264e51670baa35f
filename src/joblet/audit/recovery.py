"""Where an earlier server ended: what a crash or a power failure explains is mended, what they do not is a fault.

- A server that is killed leaves all lines that it wrote, at most one more than its head tells of, and at most a part of
  one behind these: no reply has left for either. One that ends by itself leaves what its head tells of.
- A power failure takes, beside that, what had not been flushed: lines after the head's `flushed`. Another boot_id tells
  of it.
- Everything else was done by somebody. Then nothing is mended: the log goes on in a new file, after the line that the
  head tells of, so that what is missing stays missing for all to see, and its first line says what was found.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from joblet.audit import files
from joblet.audit.chain import MOST, Line, parse
from joblet.audit.head import Head


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file, as far as its lines follow one from the other."""

    first: int = 0
    """the number of its first line; 0 when it has none"""
    number: int = 0
    hash: str = ""
    size: int = 0
    """bytes up to there"""
    rest: bytes = b""
    """the beginning of what comes after that"""
    rest_size: int = 0
    known: bool = False
    """whether it has the line that the head tells of"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where to go on."""

    number: int
    hash: str
    first: int = 0
    """the number of the first line of the file to go on with; 0: a new one is to be begun"""
    torn: int = 0
    """bytes of an unfinished line that were cut off"""
    lost: int = 0
    """lines that a power failure has taken; no more than were not flushed"""
    fault: str = ""
    """what neither explains"""


def recover(path: Path, head: Head | None, fault: str, boot: str) -> Recovered:
    """Make the files at `path` ready to be gone on with. `fault` is what is wrong with the head. Raises OSError."""
    _settle(path)
    known = head or Head()
    found = files.every(path)
    if not found:
        if known.flushed or (known.n and known.boot == boot):
            fault = fault or f"the log is missing (there were {known.n} lines)"
        return Recovered(known.n, known.hash, fault=fault)
    marks = known.marks(boot)
    tail = _tail(found[-1], known, marks)
    if not tail.first and found[-1] == path and known.boot != boot and not known.closed:
        path.unlink()  # it was begun when the power failed
        return recover(path, head, fault, boot)
    if not tail.known and tail.first and known.boot != boot:
        tail = replace(tail, known=_is_before(found, marks))
    fault = fault or _judge(tail, known, boot)
    if fault:
        number, last = (known.n, known.hash) if known.n >= tail.number else (tail.number, tail.hash)
        return Recovered(number, last, tail.first if found[-1] == path else 0, fault=fault)
    lost = max(known.n - tail.number, 0)
    if found[-1] != path:
        return Recovered(tail.number, tail.hash, lost=lost)
    if tail.rest_size:
        os.truncate(path, tail.size)
    return Recovered(tail.number, tail.hash, tail.first, tail.rest_size, lost)


def _settle(path: Path) -> None:
    """Finish, or undo, the beginning of a new file."""
    new = files.fresh(path)
    if new.exists():
        if path.exists() or not files.formers(path):
            new.unlink()
        else:
            new.rename(path)


def _judge(tail: Tail, head: Head, boot: str) -> str:
    """What neither a killed server nor a power failure explains; empty for nothing."""
    needed = head.n if head.boot == boot else head.flushed
    if tail.number < needed:
        what = "changed or missing" if tail.rest_size else "missing"
        return f"lines {tail.number + 1} to {needed} are {what}"
    if not tail.known:
        return f"line {needed} is not the one that was written"
    more = tail.rest_size > 0 if head.closed else b"\n" in tail.rest or tail.rest_size > MOST
    if (head.boot == boot or head.closed) and (tail.number > head.n + (not head.closed) or more):
        return f"there is more after line {head.n}"
    return ""


def _tail(path: Path, head: Head, marks: set[tuple[int, str]]) -> Tail:
    """Look at the last line; when that is not what the head tells of, at all of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        opening = parse(file.readline(MOST))
        if opening is None:
            return Tail(rest_size=size)
        file.seek(max(0, size - 2 * MOST))
        whole, _, rest = file.read().rpartition(b"\n")
    last = parse(whole.rpartition(b"\n")[2] + b"\n")
    if last is not None and (last.number, last.hash) == (head.n, head.hash):
        return Tail(opening.number, last.number, last.hash, size - len(rest), rest, len(rest), known=True)
    return _walk(path, opening, marks)


def _walk(path: Path, opening: Line, marks: set[tuple[int, str]]) -> Tail:
    number, previous, end = opening.number, opening.hash, 0
    known = any(opening.number == mark + 1 and opening.follows(digest) for mark, digest in marks)
    with path.open("rb") as file:
        for raw in files.lines(file):
            line = parse(raw)
            if line is None or (end and not (line.number == number + 1 and line.follows(previous))):
                break
            number, previous, end = line.number, line.hash, end + len(raw)
            known = known or (number, previous) in marks
        size = file.seek(0, os.SEEK_END)
        file.seek(end)
        return Tail(opening.number, number, previous, end, file.read(MOST), size - end, known)


def _is_before(found: list[Path], marks: set[tuple[int, str]]) -> bool:
    """Whether a marked line is in a file before the last, and all lines lead on from it: what the head was told after
    that was lost.
    """
    follower: Line | None = None
    for path in reversed(found):
        with path.open("rb") as file:
            opening = parse(file.readline(MOST))
        if opening is None:
            return False
        tail = _walk(path, opening, marks)
        if follower is not None and not (follower.number == tail.number + 1 and follower.follows(tail.hash)):
            return False
        if tail.known:
            return True
        follower = opening
    return False

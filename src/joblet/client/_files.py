"""Files of this machine that go along with an order."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import stat_result
from pathlib import Path
from typing import BinaryIO

from joblet.client.errors import InvalidArgument
from joblet.proto import joblet as pb

MAX_FILES = 10_000
"""files and directories of one order"""
_OF_A_FILE = 32
"""bytes of a message, beside path and content"""


@dataclass(frozen=True)
class Source:
    """A file or directory of this machine, or content, that is to lie in a work directory."""

    path: str
    """there, relative"""
    mode: int = 0
    """permissions; 0 is the server's choice"""
    is_directory: bool = False
    size: int = 0
    """bytes"""
    modified: int = 0
    """nanoseconds since the epoch"""
    content: bytes | None = field(default=None, repr=False)
    """in place of a file"""
    origin: Path | None = None
    """the file"""


def uploads(paths: Iterable[str | Path]) -> list[Source]:
    """What `paths` become in a work directory: a file lies there by its name, a directory as what is in it.

    Raises InvalidArgument for what cannot be read, two of one name, and more than MAX_FILES.
    """
    found = _Found()
    for given in paths:
        path = Path(given)
        if path.is_dir():
            for child in _children(path):
                found.add(child, child.name)
        else:
            found.add(path, path.name)
    return found.sources()


def uploads_of(folder: Path, names: Iterable[str], contents: Mapping[str, bytes]) -> list[Source]:
    """The files and directories of these relative `names` below `folder`, and of those in `contents` what it says.

    Raises InvalidArgument as `uploads` does.
    """
    found = _Found()
    given = [Source(name, size=len(content), content=content) for name, content in contents.items()]
    for name in dict.fromkeys(names):
        below = name + "/"
        if name not in contents and not any(other.startswith(below) for other in contents):
            found.add(folder / name, name)
    return given + found.sources()


def message_size(sources: Sequence[Source]) -> int:
    """Bytes that the sources take of a message, at most."""
    return sum(len(source.path.encode(errors="replace")) + source.size + _OF_A_FILE for source in sources)


def digest(sources: Sequence[Source]) -> str:
    """Tells sources apart by what is known of them without reading them."""
    told = [
        [source.path, source.mode, source.is_directory, source.size, source.modified]
        + ([] if source.content is None else [hashlib.sha256(source.content).hexdigest()])
        for source in sources
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def read(sources: Sequence[Source]) -> list[pb.FileUpload]:
    """The sources with all their content. Raises InvalidArgument for what cannot be read, or changes meanwhile."""
    return [_read(source) for source in sources]


class Reader:
    """The content of one source, in pieces. The mutable state is the place; blocks. Raises InvalidArgument."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file: BinaryIO | None = None

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; as many unless the source ends before."""
        source = self._source
        if source.content is not None or source.is_directory:
            return (source.content or b"")[offset : offset + size]
        path = _origin(source)
        try:
            if self._file is None:
                self._file = path.open("rb")
                self._check()
            self._file.seek(offset)
            content = self._file.read(min(size, source.size - offset))
        except OSError as error:
            raise _unreadable(path, error) from None
        if len(content) < min(size, source.size - offset):
            raise _changing(path)
        if offset + len(content) == source.size:
            self._check()
        return content

    def close(self) -> None:
        """Nothing more is read."""
        if self._file is not None:
            self._file.close()

    def _check(self) -> None:
        """What has been written to while it is read is neither the old file nor the new one."""
        assert self._file is not None
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._source.size, self._source.modified):
            raise _changing(_origin(self._source))


class _Found:
    """The mutable state is what is to be sent, by where it goes to."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Path, stat_result]] = {}

    def add(self, path: Path, name: str) -> None:
        for source, target in _walk(path, name):
            status = _status(source)
            other = self._sources.get(target)
            if other is not None and other[0] != source:
                raise InvalidArgument(f"cannot upload {source}: {other[0]} would be {target} too")
            self._sources[target] = source, status
            if len(self._sources) > MAX_FILES:
                raise InvalidArgument(f"cannot upload {path}: more than {MAX_FILES} files")

    def sources(self) -> list[Source]:
        return [_source(name, *found) for name, found in self._sources.items()]


def _walk(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    """`path` and all below it. Links to directories are not entered: they may lead anywhere, and back."""
    waiting = [(path, name)]
    while waiting:
        path, name = waiting.pop()
        yield path, name
        if path.is_dir():
            children = _children(path)
            for child in children:
                if child.is_symlink() and child.is_dir():
                    raise InvalidArgument(f"cannot upload {child}: a link to a directory")
            waiting += [(child, f"{name}/{child.name}") for child in reversed(children)]


def _children(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise _unreadable(path, error) from None


def _status(path: Path) -> stat_result:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError:
        raise InvalidArgument(f"cannot upload {path}: its name holds a NUL byte") from None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise InvalidArgument(f"cannot upload {path}: neither a file nor a directory")
    return status


def _source(name: str, path: Path, status: stat_result) -> Source:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        return Source(name, mode, is_directory=True)
    return Source(name, mode, size=status.st_size, modified=status.st_mtime_ns, origin=path)


def _read(source: Source) -> pb.FileUpload:
    reader = Reader(source)
    try:
        content = reader.read(0, source.size)
    finally:
        reader.close()
    return pb.FileUpload(path=source.path, content=content, mode=source.mode, is_directory=source.is_directory)


def _origin(source: Source) -> Path:
    assert source.origin is not None
    return source.origin


def _changing(path: Path) -> InvalidArgument:
    return InvalidArgument(f"cannot upload {path}: it changes while it is read")


def _unreadable(path: Path, error: OSError) -> InvalidArgument:
    reason = error.strerror or str(error)
    return InvalidArgument(f"cannot upload {path}: {reason[:1].lower()}{reason[1:]}")

"""Files of this machine that go along with an order."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from os import stat_result
from pathlib import Path

from joblet.client.errors import InvalidArgument
from joblet.proto import joblet as pb

MAX_FILES = 10_000
"""files and directories of one order"""
MAX_BYTES = 256 * 2**20
"""of one order; what the server takes is its own affair (grpc.maxRecvMsgSize)"""


def uploads(paths: Iterable[str | Path]) -> list[pb.FileUpload]:
    """What `paths` become in a work directory: a file lies there by its name, a directory as what is in it.

    Raises InvalidArgument for what cannot be read, two of one name, and more than MAX_FILES or MAX_BYTES.
    """
    found = _Found()
    for given in paths:
        path = Path(given)
        if path.is_dir():
            for child in _children(path):
                found.add(child, child.name)
        else:
            found.add(path, path.name)
    return found.read()


def uploads_of(folder: Path, names: Iterable[str], contents: Mapping[str, bytes]) -> list[pb.FileUpload]:
    """The files and directories of these relative `names` below `folder`, and of those in `contents` what it says.

    Raises InvalidArgument as `uploads` does.
    """
    found = _Found()
    given = [pb.FileUpload(path=name, content=content) for name, content in contents.items()]
    for name in dict.fromkeys(names):
        below = name + "/"
        if name not in contents and not any(other.startswith(below) for other in contents):
            found.add(folder / name, name)
    return given + found.read()


class _Found:
    """The mutable state is what is to be sent, by where it goes to, and how much that is."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Path, stat_result]] = {}
        self._bytes = 0

    def add(self, path: Path, name: str) -> None:
        for source, target in _walk(path, name):
            status = _status(source)
            other = self._sources.get(target)
            if other is not None and other[0] != source:
                raise InvalidArgument(f"cannot upload {source}: {other[0]} would be {target} too")
            if other is None:
                self._bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
            self._sources[target] = source, status
            if len(self._sources) > MAX_FILES:
                raise InvalidArgument(f"cannot upload {path}: more than {MAX_FILES} files")
            if self._bytes > MAX_BYTES:
                raise InvalidArgument(f"cannot upload {path}: more than {MAX_BYTES} bytes")

    def read(self) -> list[pb.FileUpload]:
        return [_read(name, *source) for name, source in self._sources.items()]


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


def _read(name: str, path: Path, status: stat_result) -> pb.FileUpload:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        return pb.FileUpload(path=name, mode=mode, is_directory=True)
    try:
        with path.open("rb") as file:
            content = file.read(status.st_size + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > status.st_size:
        raise InvalidArgument(f"cannot upload {path}: it grows while it is read")
    return pb.FileUpload(path=name, content=content, mode=mode)


def _unreadable(path: Path, error: OSError) -> InvalidArgument:
    reason = error.strerror or str(error)
    return InvalidArgument(f"cannot upload {path}: {reason[:1].lower()}{reason[1:]}")

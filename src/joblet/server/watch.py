"""Tells when one of some files may have become another, however that is done, without polling (inotify(7))."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from joblet.logs.inotify import Inotify

_MOST_LINKS = 40
"""that the kernel follows in one path: path_resolution(7)"""


class FileWatch:
    """The mutable state is the directories that are watched, and of each the names that matter.

    A file is replaced by a rename over it, by a symbolic link that is made anew (certbot), or by one of a directory on
    its way (Kubernetes). So what is watched is each directory on the way to a file, links followed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Raises OSError when the host's limit of inotify instances is reached."""
        self._on_change = on_change
        self._inotify = Inotify()
        self._watches: dict[Path, int] = {}
        self._names: Mapping[Path, set[str]] = {}

    def look_at(self, names: Mapping[Path, set[str]]) -> None:
        """Watch what `ways` has found. Raises OSError when the host's limit of watches is reached."""
        self._names = names
        former, self._watches = self._watches, {}
        for directory in names:
            # Also one that is watched: another may have its name by now. The same one gives the same watch.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                call = functools.partial(self._on_event, directory)
                self._watches[directory] = self._inotify.watch_directory(directory, call)
        for watch in set(former.values()) - set(self._watches.values()):
            self._inotify.unwatch(watch)

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()

    def _on_event(self, directory: Path, name: str) -> None:
        if not name or name in self._names.get(directory, ()):
            self._on_change()


def ways(files: Iterable[Path]) -> dict[Path, set[str]]:
    """The directories on the way to some files, and in each the names by which the way goes on."""
    found: dict[Path, set[str]] = {}
    for file in files:
        here, parts, links = Path("/"), list(Path(os.path.abspath(file)).parts[1:]), 0
        while parts:
            name = parts.pop(0)
            if name == "..":  # of a link's target: the parent of where that leads, not of the name
                here = here.parent
                continue
            found.setdefault(here, set()).add(name)
            target = _target(here / name)
            if target is None or links == _MOST_LINKS:
                here /= name
                continue
            links += 1
            steps = [step for step in target.parts if step != "/"]
            here, parts = (Path("/") if target.is_absolute() else here), steps + parts
    return found


def _target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None

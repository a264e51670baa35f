"""What is wrong with a workflow file: one line for each fault, all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from joblet.errors import InvalidWorkflow

Path = tuple[str | int, ...]
"""of keys and indices, from the top of the file"""

SHOWN = 60
"""characters of a value that a message shows"""

_COMPARED = 3000
"""characters of names that one is compared with; difflib is not fast"""


def show(text: str) -> str:
    """A value in quotes, cut, and on one line whatever is in it."""
    plain = text[:SHOWN] if text[:SHOWN].isprintable() else repr(text[:SHOWN])[1:-1]
    return f'"{plain}..."' if len(text) > SHOWN else f'"{plain}"'


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean NAME?)`, or nothing when none of those known is like it."""
    alike: list[str] = []
    left = _COMPARED
    for other in known if 0 < len(name) <= SHOWN else ():
        if other[:1] == name[0] or other[-1:] == name[-1]:
            left -= len(other)
            if left < 0:
                break
            alike.append(other)
    found = get_close_matches(name, alike, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def place(path: Path) -> str:
    """`job "train": resources.max_cpu: `, as faults begin; empty for the file itself."""
    if len(path) > 1 and path[0] == "jobs":
        return f"job {show(str(path[1]))}: {place(path[2:])}"
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if part.isprintable() and 0 < len(part) <= SHOWN else show(part)
            text += f".{key}" if text else key
    return f"{text}: " if text else ""


class Enough(Exception):
    """There are so many faults, or one so grave, that nothing more is looked at."""


class Faults:
    """The mutable state is the faults found so far; the same one is kept once."""

    MOST = 100
    """faults after which nothing more is looked at"""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: dict[tuple[int, str], None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, line: int, path: Path, what: str) -> None:
        """One more, on a line counted from 1. Raises Enough when there are too many."""
        self._found[line, f"{self._file}:{line}: {place(path)}{what}"] = None
        if len(self._found) >= self.MOST:
            raise Enough

    def lines(self) -> Sequence[str]:
        """All of them, in the file's order."""
        return [text for _, text in sorted(self._found, key=lambda found: found[0])]

    def check(self) -> None:
        """Raises InvalidWorkflow when there are any."""
        if self._found:
            raise InvalidWorkflow(self.lines())

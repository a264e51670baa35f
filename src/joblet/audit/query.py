"""Finds lines of an audit log, oldest first, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblet.audit import files
from joblet.audit.chain import MOST, parse


@dataclass(frozen=True, slots=True)
class Query:
    """What lines are to tell of; all of it."""

    client: str | None = None
    """a client's name"""
    job: str | None = None
    workflow: str | None = None
    denied: bool = False
    """only what was denied"""
    since: str = ""
    """RFC 3339 in UTC, as lines have it"""

    def wants(self, values: dict[str, Any]) -> bool:
        """Whether a line is one of these."""
        return (
            (self.client is None or values.get("client") == self.client)
            and (self.job is None or values.get("job") == self.job)
            and (self.workflow is None or values.get("workflow") == self.workflow)
            and not (self.denied and values.get("allowed") is not False)
            and str(values.get("time", "")) >= self.since
        )


def find(names: list[Path], query: Query) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines that are wanted, as they stand and what they tell, from these files, the oldest first.

    What is no line is passed over: `verify` is for that. Raises OSError.
    """
    for number, name in enumerate(names):
        if number + 1 < len(names) and query.since and _begins(names[number + 1]) < query.since:
            continue  # all of it is older
        with name.open("rb") as file:
            for raw in files.lines(file):
                line = parse(raw)
                if line is None:
                    continue
                try:
                    values = line.values()
                except ValueError:
                    continue
                if query.wants(values):
                    yield raw, values


def _begins(name: Path) -> str:
    """The time of a file's first line; of none, the latest."""
    with name.open("rb") as file:
        line = parse(file.readline(MOST))
    try:
        return str(line.values().get("time", "")) if line is not None else "~"
    except ValueError:
        return "~"

"""`joblet audit`: whether the audit log is as it was written, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet import clock, command_line

if TYPE_CHECKING:
    from joblet.audit.verify import Verified

app = typer.Typer(cls=command_line.Group, help="Check and read the log of who asked for what.", rich_markup_mode=None)

Config = Annotated[Path, typer.Option("--config", help="The configuration file, which says where the log is.")]
Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="Files of a log instead, as copies elsewhere; in any order."),
]
DEFAULT_CONFIG = Path("/opt/joblet/joblet-config.yml")

_AFTER = (
    "job",
    "jobs",
    "workflow",
    "schedule",
    "command",
    "name",
    "file",
    "step",
    "path",
    "status",
    "exitCode",
    "reason",
)
"""what a line tells of what was asked for and of what came of it, in the order in which it is shown"""
_SHORT = frozenset({"command", "status", "reason"})
"""those that need no name before them"""


@contextmanager
def _explained() -> Iterator[None]:
    from joblet.audit.verify import Changed
    from joblet.config import ConfigError

    try:
        yield
    except (ConfigError, Changed) as error:
        raise command_line.Failure(str(error)) from None
    except OSError as error:
        raise command_line.Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


@app.command(cls=command_line.Command)
def verify(
    names: Files = None,
    config: Config = DEFAULT_CONFIG,
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER:HASH", help="A line that must be there, as this command has told before."),
    ] = None,
) -> None:
    """Say that no line was edited, removed, added or moved, or which is the first that was; the exit status is 1 then.

    Where the log ends is known from what the server keeps beside its state, so copies elsewhere can be checked for all
    but that.
    """
    from joblet.audit import verify as check

    with _explained():
        known = [_expectation(text) for text in expect or ()]
        found = check.verify(_in_order(names), known) if names else check.verify_server(*_places(config), known)
        for number, _ in known:
            if number > found.last:
                raise check.Changed(f"cut: line {number}, which is expected, is missing at the end")
    command_line.write(_told(found))


@app.command(cls=command_line.Command)
def show(
    names: Files = None,
    config: Config = DEFAULT_CONFIG,
    client: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this client asked for.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    workflow: Annotated[str | None, typer.Option(metavar="ID", help="Only of this workflow and its jobs.")] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was denied.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only from a time on, such as 2024-01-15T10:30:00Z, or as long ago as 1h30m."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they stand in the log.")] = False,
) -> None:
    """Print what the log tells, the oldest first, of all its files."""
    from joblet.audit import files
    from joblet.audit.query import Query, find

    query = Query(client, job, workflow, denied, _instant(since) if since else "")
    with _explained():
        chosen = _in_order(names) if names else files.every(_places(config)[0])
        for raw, values in find(chosen, query):
            command_line.write(raw.decode("ascii", "backslashreplace") if as_json else _row(values) + "\n")


def _places(config: Path) -> tuple[Path, Path]:
    """The log that the server writes, and its state directory."""
    from joblet.config import load

    settings = load(config)
    state_dir = settings.state_dir(config.absolute().parent)
    path = settings.audit_file(state_dir)
    if path is None:
        raise command_line.Failure(f"{config}: audit.file is empty, so no audit log is written")
    return path, state_dir


def _in_order(names: list[Path]) -> list[Path]:
    from joblet.audit.chain import MOST, parse

    def first(name: Path) -> int:
        with name.open("rb") as file:
            line = parse(file.readline(MOST))
        return line.number if line else 0

    return sorted(names, key=first)


def _expectation(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(digest) == 64):
        raise typer.BadParameter(f"{text!r} is not a line's number and hash", param_hint="--expect")
    return int(number), digest


def _instant(text: str) -> str:
    """A time as lines have it, in UTC, which sorts as they do."""
    try:
        return clock.rfc3339(clock.now_ns() - round(clock.parse_duration(text) * 1e9))[:-1]
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a time (2024-01-15T10:30:00Z) nor a duration (1h30m)", param_hint="--since"
        ) from None
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _told(found: Verified) -> str:
    if not found.last:
        return "intact: no line\n"
    lines = [f"intact: lines {found.first} to {found.last} in {found.files} files, the last with the hash {found.hash}"]
    if found.unfinished:
        lines.append(f"{found.unfinished} bytes of an unfinished line, of a call that was not answered, are at the end")
    return "\n".join([*lines, *found.lost]) + "\n"


def _row(values: dict[str, Any]) -> str:
    """A line for people: time, what happened, who, from where, what came of it."""
    time = str(values.get("time", ""))
    parts = [time[:19] + "Z", str(values.get("operation") or values.get("event", ""))]
    if client := values.get("client"):
        parts.append(f"{client} ({values['role']})" if values.get("role") else str(client))
    if peer := values.get("peer"):
        parts.append(f"from {peer}")
    if "allowed" in values:
        parts.append("denied" if values["allowed"] is False else str(values.get("code", "allowed")))
    if by := values.get("by"):
        parts.append(f"by {by}")
    parts += [
        str(values[key]) if key in _SHORT else f"{key}={values[key]}"
        for key in _AFTER
        if values.get(key) not in (None, "")
    ]
    known = {
        "n",
        "time",
        "event",
        "call",
        "client",
        "role",
        "serial",
        "peer",
        "operation",
        "method",
        "allowed",
        "code",
        "by",
    }
    if "operation" not in values:
        parts += [f"{key}={value}" for key, value in values.items() if key not in known and key not in _AFTER]
    return command_line.one_line("  ".join(parts))

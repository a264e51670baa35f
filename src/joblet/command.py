"""Another command for a running job, and the rules that it has to keep. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.errors import InvalidArgument
from joblet.job import Terminal
from joblet.order import validate_command, validate_environment, validate_workdir

MAX_TERMINAL = 65535
"""rows or columns: unsigned short, ioctl_tty(2)"""
MAX_TERM = 64


@dataclass(frozen=True, slots=True)
class Command:
    """What is to run in a job beside its own command."""

    command: str
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """over the job's own; its values are nobody else's business"""
    workdir: str = ""
    """relative to the work directory, or absolute; empty is where the job's command started"""
    stdin: bool = False
    """it takes input; otherwise its input is empty"""
    terminal: Terminal | None = None


def check(command: Command) -> None:
    """Raise InvalidArgument unless it may be asked for."""
    validate_command(command.command, command.args)
    validate_environment("environment", command.environment)
    validate_workdir(command.workdir)
    if command.terminal is not None:
        check_terminal(command.terminal)


def check_terminal(terminal: Terminal) -> None:
    """Raise InvalidArgument unless there can be one like it."""
    for name, count in (("rows", terminal.rows), ("columns", terminal.columns)):
        if not 1 <= count <= MAX_TERMINAL:
            raise InvalidArgument(f"invalid terminal: {count} {name} (allowed 1 to {MAX_TERMINAL})")
    kind = terminal.term
    if len(kind) > MAX_TERM or not kind.isprintable():
        raise InvalidArgument(f"invalid terminal: {kind[:MAX_TERM]!r} is no kind (at most {MAX_TERM} characters)")

"""Another command for a running job, and the rules that it has to keep. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.job import Terminal
from joblet.order import validate_command, validate_environment, validate_terminal, validate_workdir


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
        validate_terminal(command.terminal)

"""The program's commands, each loaded when it is called for: what is not asked for costs no time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand

from rnx.plain import PlainGroup


class Entry(NamedTuple):
    """Where a command is, and what it is for."""

    module: str
    """whose `register` adds it to a program"""
    about: str
    """the first sentence of its help"""
    hidden: bool = False


COMMANDS: Mapping[str, Entry] = {
    "run": Entry("rnx.run", "Create and start a new job, or a workflow."),
    "attach": Entry("rnx.attach", "Be at the input and output of a job that was run with -i or -t, as if it ran here."),
    "status": Entry("rnx.jobs", "Get detailed information about a job, or about a workflow and its jobs."),
    "stop": Entry("rnx.jobs", "Stop running jobs: SIGTERM, or another signal, then SIGKILL."),
    "pause": Entry("rnx.jobs", "Keep running jobs from running, until `rnx resume`."),
    "resume": Entry("rnx.jobs", "Let paused jobs go on."),
    "timeout": Entry(
        "rnx.jobs",
        "Change how long a job may run, counted from its start; it may be longer than the server's jobTimeout.",
    ),
    "delete": Entry("rnx.jobs", "Delete jobs that have ended, and their logs."),
    "list": Entry(
        "rnx.listing", "List jobs with their current status: the newest that one answer holds, oldest of them first."
    ),
    "log": Entry("rnx.log", "Stream job output in real time, or view historical logs."),
    "exec": Entry(
        "rnx.exec", "Run another command in a running job: with its files, processes and user, under its limits."
    ),
    "cp": Entry(
        "rnx.copy", "Copy a file, or a directory and all in it, from a job, while it runs or when it has ended."
    ),
    "wait": Entry("rnx.wait", "Wait until jobs have ended, and print how."),
    "top": Entry(
        "rnx.top",
        "Show what running jobs use of CPU, memory and disks beside their limits: all, or these until they have ended.",
    ),
    "monitor": Entry(
        "rnx.monitor",
        "Show how the server and its host are: jobs, processors, memory, disk, network, streams and database.",
    ),
    "why": Entry(
        "rnx.why",
        "Tell what ended a job or keeps it waiting, with the evidence: limits and what was used, the end of its log.",
    ),
    "rerun": Entry(
        "rnx.why", "Run the same order again, as a new job and at once: command, limits, environment, labels, retries."
    ),
    "workflow": Entry("rnx.workflow", "Check, watch, stop, try again and draw workflows."),
    "nodes": Entry("rnx.nodes", "List the nodes of rnx-config.yml, and say which one is chosen and why."),
    "completion": Entry(
        "rnx.completion",
        "Print a script that makes a shell complete rnx's commands, options, and ids of jobs and workflows.",
    ),
    "complete": Entry("rnx.completion", "What may stand for the last of the words; for the scripts.", hidden=True),
}
"""in the order of the program's help; what a command's module says counts, and tests compare"""


class Program(PlainGroup):
    """The program, with COMMANDS before its own."""

    examples = "rnx.examples"

    def __init__(self, *, commands: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: MutableMapping[str, Any] = _Commands(commands)

    def abouts(self, width: int) -> list[tuple[str, str]]:
        """The commands that are not hidden, with what is said of each in so many characters. Loads none."""
        shown = [TyperCommand(name, help=entry.about) for name, entry in COMMANDS.items() if not entry.hidden]
        shown += [self.commands[name] for name in self.commands if name not in COMMANDS]
        return [(command.name or "", command.get_short_help_str(width)) for command in shown]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The part of the help that lists the commands."""
        widest = max(len(name) for name, _ in self.abouts(0))
        with formatter.section("Commands"):
            formatter.write_dl(self.abouts(formatter.width - 6 - widest))


class _Commands(MutableMapping[str, Any]):
    """Commands by name. The mutable state is those that are loaded."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self._loaded = dict(own)
        self._names = dict.fromkeys((*COMMANDS, *own))

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._load(COMMANDS[name].module)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._names[name], self._loaded[name] = None, command

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _load(self, module: str) -> None:
        part = typer.Typer(add_completion=False, rich_markup_mode=None)
        import_module(module).register(part)
        self._loaded |= typer.main.get_group(part).commands

"""The pages of both command lines, and the tree that the manual pages are made of too."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from generator.markdown import code, one_line, prose, table
from joblet import cli
from joblet.examples import EXAMPLES as JOBLET_EXAMPLES
from rnx import main as rnx
from rnx.examples import EXAMPLES as RNX_EXAMPLES
from rnx.session import FLAGS

Records = list[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """A command as its help shows it."""

    words: tuple[str, ...]
    """with the program's name"""
    summary: str
    text: str
    """all that its help says, in paragraphs"""
    usage: str
    """without the name"""
    arguments: Records
    options: Records
    """names, and what they are"""
    examples: tuple[tuple[str, str], ...]
    group: bool


def tree(app: typer.Typer, name: str, examples: Mapping[str, tuple[tuple[str, str], ...]]) -> list[Command]:
    """The program and each of its commands that is not hidden, in the order of the help."""
    program: Any = typer.main.get_command(app)
    return list(_walk(program, program.context_class(program, info_name=name), examples))


def programs() -> dict[str, list[Command]]:
    """Both of them, by name."""
    return {
        "rnx": tree(rnx.app, "rnx", RNX_EXAMPLES),
        "joblet": tree(cli.app, "joblet", JOBLET_EXAMPLES),
    }


def _walk(command: Any, context: Any, examples: Mapping[str, Any]) -> Iterator[Command]:
    words = tuple(context.command_path.split())
    group = hasattr(command, "commands")
    root = context.find_root().command
    shared = [] if command is root else [param for param in root.params if param.name in FLAGS]
    arguments, options = [], []
    for param in command.get_params(context):
        if param in shared or param.name == "help":
            continue
        record = param.get_help_record(context)
        if param.param_type_name == "argument":
            arguments.append(record or (param.make_metavar(context), ""))
        elif record:
            options.append(record)
    yield Command(
        words,
        one_line(command.get_short_help_str(1000)),
        inspect.cleandoc(command.help or ""),
        " ".join(command.collect_usage_pieces(context)),
        [(name, one_line(about)) for name, about in arguments],
        [(name, one_line(about)) for name, about in options],
        tuple(examples.get(" ".join(words[1:]), ())),
        group,
    )
    for name, child in command.commands.items() if group else ():
        if not child.hidden:
            yield from _walk(child, child.context_class(child, info_name=name, parent=context), examples)


def rnx_page() -> str:
    """The reference of rnx."""
    return _page(
        programs()["rnx"],
        "Flags of the program may stand before the command or among its own options. [Exit statuses](../scripts.md)"
        " are 0 for success, 1 for a failure, 2 for a wrong command line and 130 for Ctrl-C; those of `run --wait`,"
        " `run --follow` and `wait` are the job's.",
    )


def joblet_page() -> str:
    """The reference of joblet."""
    return _page(programs()["joblet"], "The server and what its operator needs. Exit statuses are those of rnx.")


def _page(commands: list[Command], introduction: str) -> str:
    program, *rest = commands
    text = f"# {program.words[0]}\n\n{prose(program.text)}\n\n{introduction}\n\n"
    text += table(
        ("command", "what it does"),
        ((f"[{code(' '.join(each.words))}](#{'-'.join(each.words)})", prose(each.summary)) for each in rest),
    )
    text += "## Flags of the program\n\n" + _records("flag", program.options) + _examples(program)
    return text + "".join(map(_section, rest))


def _section(command: Command) -> str:
    name = " ".join(command.words)
    text = f"## {name}\n\n```text\n{name} {command.usage}\n```\n\n{prose(command.text)}\n\n"
    named = [record for record in command.arguments if record[1]]
    return text + _records("argument", named) + _records("option", command.options) + _examples(command)


def _records(head: str, records: Records) -> str:
    return table((head, "meaning"), ((code(name), prose(about)) for name, about in records)) if records else ""


def _examples(command: Command) -> str:
    if not command.examples:
        return ""
    lines = "\n\n".join(f"# {about}\n{line}" for about, line in command.examples)
    return f"```sh\n{lines}\n```\n\n"

"""Command lines as the programs of typer take them apart, without anything being called."""

from __future__ import annotations

import re
import shlex
from typing import Any


def calls(line: str, name: str) -> list[list[str]]:
    """The arguments of each call of a program in a line of shell."""
    found: list[list[str]] = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    inside = False
    for token in lexer:
        if token == name and not inside:
            found.append([])
            inside = True
        elif re.fullmatch(r"[|&;()<>]+", token):
            inside = False
        elif inside:
            found[-1].append(token)
    return found


def parse(program: Any, name: str, arguments: list[str]) -> str:
    """Parse as the program does: the words of the command. Raises what the program would say."""
    command, context, words = program, program.make_context(name, arguments), []
    while hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest:
            break
        word, command, rest = command.resolve_command(context, rest)
        words.append(word)
        context = command.make_context(word, rest, parent=context)
    return " ".join(words)

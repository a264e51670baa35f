"""Secret variables of a command line: where their values come from, so that they stand in no list of processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import typer

from joblet.command_line import Failure, one_line
from rnx.workflow_file import assignments

OPTION = "--secret-env"
HELP = "of NAME alone from $NAME, of NAME=- from stdin (a terminal asks for it)"
_STDIN = "-"
_MOST = 1 << 20
"""bytes of a value; the server takes less"""


def secrets_of(
    texts: Sequence[str] | None, *, stdin_is_the_jobs: bool = False, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The values of `NAME`, of rnx's own environment, of `NAME=-`, of stdin, and of `NAME=VALUE`, with a warning.

    Of what comes from stdin a newline at the end is left out. Raises BadParameter or Failure, without any value.
    """
    values = assignments(OPTION, texts, environ)
    given = dict(text.partition("=")[::2] for text in texts or () if "=" in text)
    asked = [name for name, value in given.items() if value == _STDIN]
    if asked and stdin_is_the_jobs:
        raise typer.BadParameter(f"{asked[0]}=-: stdin is the job's, by --interactive", param_hint=OPTION)
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    if len(asked) > 1 and not on_terminal:
        raise typer.BadParameter(f"stdin holds one value, not those of {' and '.join(asked)}", param_hint=OPTION)
    for name in asked:
        values[name] = _ask(name) if on_terminal else _read(name)
    if seen := [name for name in given if name not in asked]:
        _warn(seen)
    return values


def _ask(name: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"{one_line(name)}: ")
    except EOFError:
        raise Failure(f"{OPTION}={name}=-: nothing was typed") from None


def _read(name: str) -> str:
    if sys.stdin is None:
        raise Failure(f"{OPTION}={name}=-: there is no stdin")
    content = sys.stdin.buffer.read(_MOST + 1)
    if len(content) > _MOST:
        raise Failure(f"{OPTION}={name}=-: stdin holds more than {_MOST} bytes")
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Failure(f"{OPTION}={name}=-: stdin holds no UTF-8 text") from None


def _warn(names: Sequence[str]) -> None:
    if sys.stderr is not None:
        shown = one_line(" ".join(f"{OPTION}={name}" for name in names))
        sys.stderr.write(
            f"Warning: lists of processes show values of a command line; take them from variables: {shown}\n"
        )

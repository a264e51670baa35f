"""What the entry points share: every failure is a line on stderr (or some) and a status, never a traceback.

Statuses: 0 success, 1 failure, 2 usage, 130 interrupted (128 + SIGINT), 141 the reader of stdout left (128 + SIGPIPE).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    import typer

FAILURE = 1
INTERRUPTED = 130
OUTPUT_CLOSED = 141


class Command(TyperCommand):
    """A command whose help ends with its examples."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, after an epilog if there is one."""
        super().format_epilog(ctx, formatter)
        _write_examples(ctx, formatter)


class Group(TyperGroup):
    """A group of commands whose help ends with its examples, or a whole program."""

    examples = ""
    """of a program: the module with EXAMPLES, which is read only when help is asked for"""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, after an epilog if there is one."""
        super().format_epilog(ctx, formatter)
        _write_examples(ctx, formatter)


def _write_examples(ctx: Any, formatter: Any) -> None:
    root = ctx.find_root()
    module = getattr(root.command, "examples", "")
    path = ctx.command_path.removeprefix(root.command_path).strip()
    found = import_module(module).EXAMPLES.get(path, ()) if module else ()
    if found:
        with formatter.section("Examples"):
            indent = " " * formatter.current_indent
            blocks = (f"{indent}# {about}\n{indent}{line}\n" for about, line in found)
            formatter.write("\n".join(blocks))


class OutputClosed(Exception):
    """Nobody reads stdout any more, as in `rnx log 1 | head -1`."""


class Failure(Exception):
    """What the user has to know; each line of the message is printed after `Error: `."""


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run `app` with the process's arguments and exit.

    An exception that is neither Failure nor a usage error is a bug: `internal error`, and the traceback when
    JOBLET_DEBUG is set.
    """
    try:
        status = app(args=sys.argv[1:], prog_name=name, standalone_mode=False)
    except KeyboardInterrupt:
        _exit(INTERRUPTED)
    except OutputClosed:
        _exit(OUTPUT_CLOSED)
    except Failure as error:
        fail(str(error))
    except Exception as error:
        if hasattr(error, "format_message"):
            _fail_usage(error)
        if os.environ.get("JOBLET_DEBUG"):
            raise
        fail(one_line(f"internal error: {type(error).__name__}: {error}"))
    _exit(status if isinstance(status, int) else 0)


def write(text: str) -> None:
    """Write to stdout, at once.

    Raises OutputClosed when nobody reads it, Failure when it cannot be written otherwise.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        write(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        raise output_error(error) from None


def output_error(error: OSError) -> Exception:
    """What a failed write to stdout means."""
    if isinstance(error, BrokenPipeError):
        return OutputClosed()
    return Failure(f"cannot write output: {error.strerror}")


def one_line(text: str) -> str:
    """`text` with control characters escaped: it cannot break a line, nor command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def fail(message: str) -> NoReturn:
    """Print `Error: <message>` on stderr, as `complain` does, and exit with status 1."""
    complain(message)
    _exit(FAILURE)


def _fail_usage(error: Exception) -> NoReturn:
    # typer carries click inside since 0.2x and beside before: the duck type is the same
    message = str(error.format_message()).rstrip(".") if hasattr(error, "format_message") else str(error)
    path = getattr(getattr(error, "ctx", None), "command_path", "")
    complain(f"{message} (see {path} --help)" if path else message)
    _exit(getattr(error, "exit_code", FAILURE))


def complain(message: str) -> None:
    """Print `Error: <message>` on stderr: one line, or one for each line of the message."""
    _say("Error", message)


def warn(message: str) -> None:
    """Print `Warning: <message>` on stderr, likewise."""
    _say("Warning", message)


def _say(what: str, message: str) -> None:
    if sys.stderr is not None:
        text = "".join(f"{what}: {one_line(line)}\n" for line in message.split("\n"))
        encoding = sys.stderr.encoding
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _exit(status: int) -> NoReturn:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # The interpreter flushes again at exit and would complain; what is left has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)

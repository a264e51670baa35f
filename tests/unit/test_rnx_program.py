"""Commands are found where the program says, are what it says of them, and are loaded when they are called for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import pytest
import typer
from harness import modules_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rnx import main
from rnx.program import COMMANDS, Program

HEAVY = frozenset(
    {
        *("asyncio", "ssl", "grpclib", "betterproto2", "pydantic_core", "rich", "yaml", "cryptography"),
        *("joblet.client", "joblet.workflow"),
    }
)


def program() -> Program:
    made = typer.main.get_group(main.app)
    assert isinstance(made, Program)
    return made


@pytest.mark.parametrize("module", sorted({entry.module for entry in COMMANDS.values()}))
def test_the_table_tells_what_the_modules_have(module: str) -> None:
    part = typer.Typer()
    import_module(module).register(part)
    found = typer.main.get_group(part).commands
    assert set(found) == {name for name, entry in COMMANDS.items() if entry.module == module}
    for name, command in found.items():
        first, *_ = (command.help or "").split("\n\n")
        about = " ".join(first.split()).partition(". ")[0].removesuffix(".")
        assert (COMMANDS[name].about, COMMANDS[name].hidden) == (about + ".", command.hidden)


def test_every_command_is_there_by_its_name() -> None:
    commands = program().commands
    assert list(commands) == [*COMMANDS, "version"]
    assert len(commands) == len(list(commands.values()))
    assert all(command.name == name for name, command in commands.items())
    assert "nonsense" not in commands


@pytest.mark.parametrize(
    "arguments", [["--help"], ["version"], ["--version"], ["complete", "bash", "--", "st"], ["nonsense"]], ids=" ".join
)
def test_what_needs_no_server_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = modules_of(*arguments)
    assert "typer" in loaded
    assert not loaded & HEAVY
    if arguments[0] != "complete":
        assert not loaded & {entry.module for entry in COMMANDS.values()}


PARAMETERS = [
    ("run", "--max-cpu"),
    ("run", "--name"),
    ("run", "--env"),
    ("run", "--timeout"),
    ("run", "--upload"),
    ("list", "--limit"),
    ("top", "--sort"),
    ("log", "--since"),
    ("workflow", "--help"),
]
"""of each kind one"""

TEXTS = st.one_of(
    st.text(max_size=8), st.integers().map(str), st.sampled_from(["", "1h", "5s", "cpu", "1.0", " 5", "٣"])
)


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_what_is_not_converted_is_as_typer_would_convert_it(text: str) -> None:
    for plain, typers in pairs():
        for value in ([text] if plain.multiple else text, None, plain.default):
            as_it_is = plain._runtime_param
            assert converted(plain, value) == converted(typers, value), (plain.name, value)
            plain._runtime_param = as_it_is


def converted(param: Any, value: Any) -> Any:
    """What a parameter makes of a value, or why it does not."""
    try:
        return param.process_value(None, value)
    except Exception as error:
        return type(error).__name__, getattr(error, "message", "")


@cache
def pairs() -> list[tuple[Any, Any]]:
    """Each of the parameters as rnx has it, and as typer has it."""
    ours, typers = program(), program()
    found = []
    for name, option in PARAMETERS:
        pair = []
        for commands in (ours.commands, typers.commands):
            command = commands[name]
            params = command.get_params(type(command).context_class(command))
            pair.append(next(param for param in params if option in param.opts))
        if not hasattr(pair[0], "get_runtime_param"):
            pytest.skip("this typer converts in its own way")
        pair[1]._runtime_param = None
        found.append((pair[0], pair[1]))
    return found

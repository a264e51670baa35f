"""Help ends with examples, each of which is a command line that its program understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from command_lines import calls, parse

from joblet import cli
from joblet.examples import EXAMPLES as JOBLET_EXAMPLES
from rnx import main as rnx
from rnx.examples import EXAMPLES as RNX_EXAMPLES

PROGRAMS = {"rnx": (rnx.app, RNX_EXAMPLES), "joblet": (cli.app, JOBLET_EXAMPLES)}
LINES = [
    (name, words, line)
    for name, (_, examples) in PROGRAMS.items()
    for words, found in examples.items()
    for _, line in found
]


def program(name: str) -> Any:
    return typer.main.get_command(PROGRAMS[name][0])


def commands(name: str) -> Mapping[str, Any]:
    """Each command that is not hidden, by its words after the program's name."""
    found = {"": program(name)}
    waiting = [("", found[""])]
    while waiting:
        words, group = waiting.pop()
        for child in getattr(group, "commands", {}).values():
            if not child.hidden:
                path = f"{words} {child.name}".strip()
                found[path] = child
                waiting.append((path, child))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_has_one_to_four_examples(name: str) -> None:
    counts = {words: len(PROGRAMS[name][1].get(words, ())) for words in commands(name)}
    assert {words: count for words, count in counts.items() if not 1 <= count <= 4} == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_example_is_of_a_command(name: str) -> None:
    assert set(PROGRAMS[name][1]) <= set(commands(name))


@pytest.mark.parametrize(("name", "words", "line"), LINES, ids=[line for _, _, line in LINES])
def test_an_example_is_understood(
    name: str, words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in calls(line, name):
        for file in re.findall(r"--upload=(\S+)", " ".join(arguments)):
            (tmp_path / file).touch()
    found = [parse(program(name), name, arguments) for arguments in calls(line, name)]
    assert found
    assert any(each == words or each.startswith(words) for each in found), found


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_ends_with_the_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(name):
        program(name).main([*words.split(), "--help"], prog_name=name, standalone_mode=False)
        about, line = PROGRAMS[name][1][words][-1]
        assert capsys.readouterr().out.endswith(f"  # {about}\n  {line}\n"), words

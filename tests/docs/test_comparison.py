"""The comparison with other tools: rnx understands its column, and the page admits every row where it is longer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from command_lines import calls, parse
from pages import Page

from rnx import main

TABLE, _, ADMITTED = Page("docs/comparison.md").text.partition("## Where ours is longer")
ROWS = {
    int(number): [cell.replace("\\|", "|") for cell in re.split(r"(?<!\\) \| ", cells)]
    for number, cells in re.findall(r"^\| (\d+) [^|]+ \| (.+) \|$", TABLE, flags=re.MULTILINE)
}


def commands(cell: str) -> list[str]:
    """What is typed, by a cell; nothing where the tool does not have it, or needs a file to be written as well."""
    return [] if "file" in cell.lower().replace("--from-file", "") else re.findall(r"`([^`]+)`", cell)[:1]


def longer() -> dict[int, int]:
    """By how many keystrokes rnx's command is longer than the shortest of the others, where it is."""
    found = {}
    for number, (*others, ours) in ROWS.items():
        lengths = [len(command) for cell in others for command in commands(cell)]
        if lengths and len(commands(ours)[0]) > min(lengths):
            found[number] = len(commands(ours)[0]) - min(lengths)
    return found


def test_there_are_thirty_actions_of_five_tools() -> None:
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 30
    assert {len(cells) for cells in ROWS.values()} == {5}


@pytest.mark.parametrize("number", ROWS)
def test_rnx_understands_its_column(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").touch()
    (line,) = commands(ROWS[number][-1])
    assert line.startswith("rnx ")
    for arguments in calls(line, "rnx"):
        assert parse(typer.main.get_command(main.app), "rnx", arguments)


def test_the_page_says_by_how_much_ours_is_longer_and_why() -> None:
    said = {
        int(number): int(count)
        for numbers in re.findall(r"^\| ([^|]+) \| [^|]+ \|$", ADMITTED, flags=re.MULTILINE)
        for number, count in re.findall(r"(\d+) \(\+(\d+)\)", numbers)
    }
    assert said == longer()

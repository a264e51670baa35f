"""Where the values of `--secret-env` come from, and that nothing shows them."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
import typer
from harness import PATIENCE
from terminal import read_to_end, read_until

from joblet.command_line import Failure
from rnx.secrets import secrets_of

VALUE = "hunter2"
ASK = """
from rnx.secrets import secrets_of
print({name: len(value) for name, value in secrets_of(["A=-", "B=-"]).items()})
"""


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_values_of_variables_and_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert secrets_of(None) == {}
    assert secrets_of(["A"], environ={"A": VALUE}) == {"A": VALUE}
    assert capsys.readouterr().err == ""
    assert secrets_of([f"A={VALUE}", "B=", "C=x=-", "D"], environ={"D": "d"}) == {
        "A": VALUE,
        "B": "",
        "C": "x=-",
        "D": "d",
    }
    told = capsys.readouterr().err
    assert told.startswith("Warning: lists of processes show values of a command line; ")
    assert told.endswith("--secret-env=A --secret-env=B --secret-env=C\n")
    assert VALUE not in told


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"", ""),
        (b"hunter2", VALUE),
        (b"hunter2\n", VALUE),
        (b"hunter2\r\n", VALUE),
        (b"a\nb\n\n", "a\nb\n"),
        (b"\xc3\xa4", "ä"),
    ],
)
def test_a_value_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, value: str
) -> None:
    stdin(monkeypatch, content)
    assert secrets_of(["A=-"]) == {"A": value}
    assert capsys.readouterr().err == ""


def test_what_stdin_cannot_give(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"x")
    with pytest.raises(typer.BadParameter, match="stdin holds one value, not those of A and B"):
        secrets_of(["A=-", "B=-"])
    with pytest.raises(typer.BadParameter, match="A=-: stdin is the job's, by --interactive"):
        secrets_of(["A=-"], stdin_is_the_jobs=True)
    for content, sentence in ((b"hunter2\xff", "no UTF-8 text"), (b"hunter2" * 200_000, "more than 1048576 bytes")):
        stdin(monkeypatch, content)
        with pytest.raises(Failure, match=sentence) as error:
            secrets_of(["A=-"])
        assert VALUE not in str(error.value)


def test_a_terminal_asks_and_shows_nothing_that_is_typed() -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", ASK], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        drawn = read_until(ours, "A: ")
        os.write(ours, f"{VALUE}\n".encode())
        drawn += read_until(ours, "B: ")
        os.write(ours, b"second-value\n")
        drawn += read_to_end(ours)
        assert program.wait(PATIENCE) == 0
    finally:
        program.kill()
        program.wait(PATIENCE)
        os.close(ours)
    assert "{'A': 7, 'B': 12}" in drawn
    assert VALUE not in drawn
    assert "second-value" not in drawn

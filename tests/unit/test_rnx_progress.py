"""The bar of long transfers: on a terminal only, when there is something to wait for."""

from __future__ import annotations

import io
import re

import pytest

from rnx import progress
from rnx.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO | None, *, patience: float = 0) -> str:
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    with Bar("Uploading", "Uploaded") as bar:
        for done in range(0, 5_000_001, 1_000_000):
            bar.update(done, 5_000_000)
    return stderr.getvalue() if stderr is not None else ""


def test_a_terminal_has_a_bar_and_then_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal())
    assert "Uploading" in text
    assert re.search(r"Uploaded 5\.0 MB in 0s \(\d+\.\d MB/s\)\n$", text)


def test_nothing_is_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()) == ""
    assert shown(monkeypatch, Terminal(), patience=60) == ""
    assert shown(monkeypatch, None) == ""


def test_what_fails_has_no_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_PATIENCE", 0)

    def fail() -> None:
        with Bar("Uploading", "Uploaded") as bar:
            bar.update(1, 0)
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        fail()
    assert "Uploading" in terminal.getvalue()
    assert "Uploaded" not in terminal.getvalue()

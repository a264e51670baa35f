"""The doctor's table."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.doctor.render import render, wrap
from joblet.doctor.report import Report, Row, Section, Verdict

PATH = "/var/lib/containers/storage/overlay/0123456789abcdef0123456789abcdef0123456789abcdef/merged"
REPORT = Report(
    (
        Section(
            "Host",
            (
                Row("kernel", "Linux 6.1.0, x86_64", "needs 5.12 or newer"),
                Row("clock", "nothing keeps it synchronised", "times", Verdict.GAP, "Let a time service keep it."),
            ),
        ),
        Section("Storage", (Row("room", PATH, "logs", Verdict.FAILS, f"Make room in {PATH} or take another disk."),)),
    ),
    root=True,
)
CONTROLS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_wider_than_asked(width: int, terminal: bool) -> None:
    for line in CONTROLS.sub("", render(REPORT, terminal=terminal, width=width)).splitlines():
        assert len(line) <= width


def test_plain_text_has_no_controls_and_aligned_columns() -> None:
    text = render(REPORT, terminal=False)
    assert text.isascii()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0].split() == ["check", "this", "host", "what", "joblet", "uses"]
    kernel = next(line for line in lines if "kernel" in line)
    for word, heading in (("kernel", "check"), ("Linux", "this host"), ("needs", "what joblet")):
        assert kernel.index(word) == lines[0].index(heading)
    assert "       -> Let a time service keep it." in lines
    assert lines[-1] == REPORT.summary


def test_verdicts_are_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mgap" in render(REPORT, terminal=True)


def test_what_a_host_says_cannot_command_the_terminal() -> None:
    row = Row("kernel", "\x1b]0;title\x07[bold]x[/bold]", "use")
    text = render(Report((Section("Host", (row,)),), root=True), terminal=False)
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text


def test_paths_break_behind_their_slashes() -> None:
    assert wrap("see /usr/share/doc now", 12) == "see /usr/\nshare/doc\nnow"
    assert wrap("", 10) == ""


@given(st.text(alphabet="ab /", max_size=60), st.integers(min_value=8, max_value=30))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    assert re.sub(r"[ \n]", "", wrap(text, width)) == text.replace(" ", "")

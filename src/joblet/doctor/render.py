"""The report as a table: coloured and as wide as the terminal, or plain text in 100 columns."""

from __future__ import annotations

import io
import re
import shutil

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from joblet.command_line import one_line
from joblet.doctor.report import AS_ROOT, Report, Row, Verdict

PLAIN_WIDTH = 100
_WIDEST = 120
_VERDICT, _CHECK, _GUTTER = 5, 16, 2
_STYLES = {Verdict.OK: "green", Verdict.NOTE: "cyan", Verdict.GAP: "yellow", Verdict.FAILS: "bold red"}


def render(report: Report, *, terminal: bool, width: int | None = None) -> str:
    """The table and the summary. What to do about a row stands below it, across all columns.

    Without a `width` it is as wide as the terminal.
    """
    if width is None:
        width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=min(width, _WIDEST), highlight=False)
    console.print(_columns(console.width, "", "check", "this host", "what joblet uses", style="bold"))
    console.print("-" * console.width, style="dim")
    for section in report.sections:
        console.print(Text(section.title.upper(), style="bold"))
        for row in section.rows:
            _print(console, row)
        console.print()
    console.print(Text(report.summary, style="bold"))
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _print(console: Console, row: Row) -> None:
    style = _STYLES[row.verdict]
    console.print(_columns(console.width, Text(row.verdict, style=style), row.check, row.host, row.use))
    if row.advice and row.advice != AS_ROOT:  # which is said once, of the caller's privileges
        indent = _VERDICT + _GUTTER
        advice = Text(wrap(f"-> {one_line(row.advice)}", console.width - indent), style=style)
        console.print(Padding(advice, (0, 0, 0, indent)))


def _columns(width: int, verdict: str | Text, check: str, host: str, use: str, *, style: str = "") -> Table:
    rest = width - _VERDICT - _CHECK - 3 * _GUTTER
    sizes = (_CHECK, rest * 9 // 20, rest - rest * 9 // 20)
    table = Table.grid(padding=(0, _GUTTER, 0, 0), pad_edge=False)
    table.add_column(width=_VERDICT)
    for size in sizes:
        table.add_column(width=size, overflow="fold")
    cells = [Text(wrap(one_line(cell), size)) for cell, size in zip((check, host, use), sizes, strict=True)]
    table.add_row(verdict, *cells, style=style)
    return table


def wrap(text: str, width: int) -> str:
    """`text` in lines of `width`, broken at spaces and behind the slashes of paths."""
    lines, line = [], ""
    for piece in re.findall(r"[^ /]*[ /]|[^ /]+", text):
        if line and len(line) + len(piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return "\n".join([*lines, line])

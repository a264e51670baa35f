"""The suite's results as text: a table on a terminal, aligned lines that can be copied elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from joblet.escape.verdict import Result, Verdict, passed

_STYLES = {
    Verdict.HELD: "green",
    Verdict.BREACH: "bold white on red",
    Verdict.DIFFERS: "bold red",
    Verdict.GAP: "yellow",
    Verdict.UNTRIED: "dim",
}
_WIDTHS = (10, 66, 16)


def show(results: Sequence[Result], console: Console) -> None:
    """Table, what is to be said of all that did not simply hold, and the sum in one line."""
    if console.is_terminal:
        console.print(_table(results))
    else:
        for result in results:
            console.print(_line(result), markup=False, highlight=False, soft_wrap=True)
    for result in results:
        if result.verdict is not Verdict.HELD:
            console.print(_remark(result), soft_wrap=not console.is_terminal)
    console.print(Text(summary(results), style="green" if passed(results) else "bold red"), soft_wrap=True)


def summary(results: Sequence[Result]) -> str:
    """`240 attempts: 238 held, 1 gap, 1 not tried`."""
    counts = Counter(result.verdict for result in results)
    parts = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    return f"{len(results)} attempts: {', '.join(parts)}"


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("CATEGORY", "ATTEMPT", "OUTCOME", "VERDICT"):
        table.add_column(column, overflow="fold")
    category = ""
    for result in results:
        shown = result.attempt.category if result.attempt.category != category else ""
        category = result.attempt.category
        verdict = Text(result.verdict, style=_STYLES[result.verdict])
        table.add_row(shown, Text(result.attempt.name), Text(result.outcome.name), verdict)
    return table


def _line(result: Result) -> str:
    fields = (result.attempt.category, result.attempt.name, result.outcome.name)
    return "".join(f"{field:<{width}} " for field, width in zip(fields, _WIDTHS, strict=True)) + result.verdict


def _remark(result: Result) -> Text:
    """What exactly happened, and what to do."""
    outcome = result.outcome
    text = Text.assemble((result.verdict, _STYLES[result.verdict]), f": {result.attempt.name}: ")
    if result.verdict is Verdict.DIFFERS:
        text.append(f"{outcome.name}, not {' or '.join(sorted(result.attempt.expect))}: ")
    text.append(outcome.detail)
    if outcome.lacks:
        text.append(f". Missing: {outcome.lacks}")
    if result.advice:
        text.append(f". To do: {result.advice}")
    return text

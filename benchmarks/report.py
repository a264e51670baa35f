"""Results as lines, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path

from benchmarks.measure import OURS, Result, Spread


def line(result: Result) -> str:
    """One contest in a line."""
    ours = _spread(result.spread(OURS), result.unit)
    others = ", ".join(
        f"{name} {_spread(result.spread(name), result.unit)} -> {_ratio(result.ratio(name))}"
        for name in result.references
    )
    return f"{result.name}: {ours}" + (f"; {others}" if others else "")


def table(results: list[Result]) -> str:
    """A Markdown table: a row for each reference of each contest."""
    rows = ["| what | joblet | reference | ratio | range | aim |", "|---|---|---|---|---|---|"]
    for result in results:
        ours = _number(result.spread(OURS).median, result.unit)
        for name in result.references or [""]:
            if not name:
                rows.append(f"| {result.name} | {ours} | | | | {result.goal} |")
                continue
            theirs, ratio = _number(result.spread(name).median, result.unit), result.ratio(name)
            aim = result.goal.removeprefix(name).strip() if result.goal.startswith(f"{name} ") else ""
            spread = f"{ratio.least:.2f} to {ratio.most:.2f}"
            rows.append(f"| {result.name} | {ours} | {name} {theirs} | {ratio.median:.2f} | {spread} | {aim} |")
    return "\n".join(rows) + "\n"


def write(folder: Path, results: list[Result]) -> None:
    """results.json and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "results": [dataclasses.asdict(result) for result in results]}
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "table.md").write_text(table(results))


def machine() -> dict[str, object]:
    """What the figures are worth nothing without."""
    model = [row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _spread(spread: Spread, unit: str) -> str:
    return f"{_number(spread.median, unit)} ({_number(spread.least, unit)} to {_number(spread.most, unit)})"


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def _number(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.2f} ms" if value < 10 else f"{value:.1f} s"
    return f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"

"""Writes what a measurement has shown into the documentation: the tables of docs/benchmarks.md, and its plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.report import Run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/benchmarks.md"
PLOTS = ROOT / "docs/benchmarks"
BEGIN, END = "<!-- figures, by `scripts/test -s bench -- --docs` -->\n", "<!-- end of the figures -->\n"
CAPTIONS = {
    "aims": "How far each figure is from its aim",
    "latency": "Distributions of latency",
    "throughput": "Throughput over concurrency",
    "memory": "Memory over running jobs",
    "history": "Calls over the jobs that have ended",
}


def publish(described: dict[str, object], runs: Sequence[Run]) -> None:
    """Write all of it anew. Needs matplotlib."""
    from benchmarks import plots

    drawn = plots.draw(runs, PLOTS)
    text = PAGE.read_text()
    PAGE.write_text(with_figures(text, figures(described, runs, [path.stem for path in drawn])))


def figures(described: dict[str, object], runs: Sequence[Run], plots: Sequence[str]) -> str:
    """The generated part of the page."""
    images = "".join(f"![{CAPTIONS[name]}](benchmarks/{name}.svg)\n\n" for name in CAPTIONS if name in plots)
    times = {1: "once", 2: "twice", 3: "three times"}.get(len(runs), f"{len(runs)} times")
    return (
        f"The whole {times}, on: {machine.sentence(described)}.\n"
        "A cell is the median of a run's rounds, with the least and the most of them.\n\n"
        f"### Aims\n\n{report.aims(runs)}\n{images}### Everything\n\n{report.table(runs)}"
    )


def with_figures(page: str, fresh: str) -> str:
    """The page, with this between its marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no marks {BEGIN.strip()!r} and {END.strip()!r} in the page")
    return f"{before}{begin}\n{fresh}\n{end}{after}"

"""Results as lines, as JSON and back, and as tables in which several runs stand beside each other."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import OURS, Aim, Figure, Result, Spread

Run = Sequence[Result]


def line(result: Result) -> str:
    """One figure in a line."""
    ours = _spread(result.spread(OURS), result.figure.unit) if result.values else "not measured"
    others = [
        f"{name} {_spread(result.spread(name), result.figure.unit)} -> {_ratio(result.ratio(name))}"
        for name in result.references
    ]
    others += [f"without {name}: {why}" for name, why in result.absent.items()]
    return f"{result.figure.name}: {ours}" + "".join(f"; {other}" for other in others)


def save(path: Path, machine: dict[str, object], runs: Sequence[Run]) -> None:
    """All of it as JSON. The file is whole at any time, for what a measurement of hours has shown so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "runs": [[dataclasses.asdict(result) for result in run] for run in runs]}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(fresh, path)


def load(path: Path) -> tuple[dict[str, object], list[Run]]:
    """What `save` has saved: the machine, and the runs."""
    content = json.loads(path.read_text())
    return content["machine"], [[_result(each) for each in run] for run in content["runs"]]


def _result(content: dict[str, object]) -> Result:
    figure = dict(content.pop("figure"))  # type: ignore[call-overload]
    aim = figure.pop("aim")
    return Result(Figure(**figure, aim=aim and Aim(**aim)), **content)  # type: ignore[arg-type]


def aims(runs: Sequence[Run]) -> str:
    """A Markdown table of what has an aim, and in how many of the runs it was reached."""
    rows = [["what", "reference", "aim", *_columns(runs), "reached"]]
    for figure, own in _by_figure(runs):
        aim = figure.aim
        if aim is None or all(aim.reference and aim.reference not in result.values for result in own):
            continue
        shown = [result for result in own if not aim.reference or aim.reference in result.values]
        measured = [_measured(result, aim.reference) for result in shown]
        reached = sum(
            spread.median >= aim.bound if figure.higher_is_better else spread.median <= aim.bound for spread in measured
        )
        cells = _cells(runs, figure, aim.reference)
        rows.append([figure.name, aim.reference, _aim(figure, aim), *cells, f"{reached} of {len(shown)}"])
    return _markdown(rows)


def table(runs: Sequence[Run]) -> str:
    """A Markdown table of everything: a row for each reference of each figure, with the medians of all runs."""
    rows = [["what", "joblet", "reference", *_columns(runs)]]
    for figure, own in _by_figure(runs):
        ours = _number(_median(own, OURS), figure.unit) if own[0].values else ""
        for name in own[0].references or [""] if own[0].values else []:
            theirs = f"{name} {_number(_median(own, name), figure.unit)}" if name else ""
            rows.append([figure.name, ours, theirs, *_cells(runs, figure, name)])
        for name, why in own[0].absent.items():
            rows.append([figure.name, ours, f"{name}: not measured, {why}", *("" for _ in runs)])
    return _markdown(rows)


def _by_figure(runs: Sequence[Run]) -> list[tuple[Figure, list[Result]]]:
    """The results of each figure, of those runs that have it."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        for result in run:
            found.setdefault(result.figure.name, []).append(result)
    return [(own[0].figure, own) for own in found.values()]


def _columns(runs: Sequence[Run]) -> list[str]:
    return [f"run {number}" for number in range(1, len(runs) + 1)] if len(runs) > 1 else ["measured"]


def _cells(runs: Sequence[Run], figure: Figure, reference: str) -> list[str]:
    """Of each run the ratio to the reference, or ours where there is none; empty where it was not measured."""
    cells = []
    for run in runs:
        result = next((each for each in run if each.figure.name == figure.name), None)
        if result is None or (reference and reference not in result.values):
            cells.append("")
            continue
        spread = _measured(result, reference)
        cells.append(_ratio(spread) if reference else _spread(spread, result.figure.unit))
    return cells


def _measured(result: Result, reference: str) -> Spread:
    return result.ratio(reference) if reference else result.spread(OURS)


def _median(own: list[Result], name: str) -> float:
    return statistics.median(result.spread(name).median for result in own if name in result.values)


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _aim(figure: Figure, aim: Aim) -> str:
    bound = f"{aim.bound:.2f}" if aim.reference else _number(aim.bound, figure.unit)
    return f"{'at least' if figure.higher_is_better else 'at most'} {bound}"


def _spread(spread: Spread, unit: str) -> str:
    return f"{_number(spread.median, unit)} ({_number(spread.least, unit)} to {_number(spread.most, unit)})"


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def _number(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"

"""Results as SVG, in colours that can be read on light and on dark ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
INK = "#768390"
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "joblet",
        "svg.fonttype": "none",
        "font.family": ["sans-serif"],
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.labelcolor": INK,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "grid.color": INK,
    }
)

from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: E402

from benchmarks.measure import OURS, QUANTILES, Result, Spread  # noqa: E402
from benchmarks.report import Run  # noqa: E402

COLORS = {
    OURS: "#2f81f7",
    "bwrap": "#d18616",
    "crun": "#a371f7",
    "unshare": "#3fa45b",
    "GNU parallel": "#c9518f",
    "Slurm": "#e5534b",
    "grpc.aio": "#d18616",
    "TLS socket": "#3fa45b",
    "with 10 jobs": "#3fa45b",
    "interpreter": "#d18616",
}
LATENCIES = {
    "launch, 0 jobs running": "launch: RunJob until exec",
    "calls per second, 16 connections": "a call, 16 connections",
    "from write to receipt, median": "a line, from write to receipt",
}
RATES = {
    "jobs": ("jobs run to their end", "in flight", "jobs a second"),
    "calls": ("calls", "connections", "calls a second"),
}

__all__ = ["draw", "pyplot"]


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Every plot that there are results for, as files of the folder; of several runs, the last that has the result."""
    results = {result.figure.name: result for run in runs for result in run}
    folder.mkdir(parents=True, exist_ok=True)
    plots: dict[str, list[Callable[[Axes], None]]] = {
        "latency": [
            _distribution(results[name], title)
            for name, title in LATENCIES.items()
            if name in results and results[name].quantiles
        ],
        "throughput": [
            _lines(points, *words) for series, words in RATES.items() if (points := _series(results, series))
        ],
        "memory": [
            _lines(points, title, "jobs running", "MB, proportional")
            for series, title in (
                ("all", "server, shims and inits"),
                ("server", "server alone"),
            )
            if (points := _series(results, series))
        ],
        "history": [
            _lines(points, title, "jobs ended", "ms", scale=1000)
            for series, title in (("status", "status"), ("list of 10", "list of 10"))
            if (points := _series(results, series))
        ],
    }
    drawn = []
    for name, panels in plots.items():
        if panels:
            figure, axes = pyplot.subplots(1, len(panels), figsize=(3.6 * len(panels), 2.9), squeeze=False)
            for own, panel in zip(axes[0], panels, strict=True):
                panel(own)
            drawn.append(_save(figure, folder / f"{name}.svg"))
    compared = [result for result in results.values() if result.figure.aim and result.references]
    if compared:
        drawn.append(_aims(runs, folder / "aims.svg"))
    return drawn


def _series(results: dict[str, Result], series: str) -> list[Result]:
    return sorted((each for each in results.values() if each.figure.series == series), key=lambda r: r.figure.at)


def _distribution(result: Result, title: str) -> Callable[[Axes], None]:
    """The share of operations that took at most so long."""

    def panel(axes: Axes) -> None:
        shares = [place / QUANTILES for place in range(QUANTILES + 1)]
        for name, quantiles in result.quantiles.items():
            axes.plot([value * 1000 for value in quantiles], shares, color=_color(name), label=name, linewidth=1.4)
        _logarithmic(axes)
        axes.set(title=title, xlabel="ms", ylabel="share of them", ylim=(0, 1.01))
        axes.legend(loc="lower right")

    return panel


def _lines(points: list[Result], title: str, along: str, unit: str, *, scale: float = 1) -> Callable[[Axes], None]:
    """A line for each contestant, with the range of its rounds."""

    def panel(axes: Axes) -> None:
        for name in dict.fromkeys(name for point in points for name in point.values):
            own = [point for point in points if name in point.values]
            spreads = [point.spread(name) for point in own]
            middle = [spread.median * scale for spread in spreads]
            below = [(spread.median - spread.least) * scale for spread in spreads]
            above = [(spread.most - spread.median) * scale for spread in spreads]
            places = [point.figure.at for point in own]
            axes.errorbar(
                places,
                middle,
                yerr=(below, above),
                color=_color(name),
                label=name,
                marker="o",
                markersize=3,
                linewidth=1.4,
                elinewidth=0.8,
            )
        if min(point.figure.at for point in points) > 0:
            axes.set_xscale("log")
        axes.set_xticks([point.figure.at for point in points])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        axes.set(title=title, xlabel=along, ylabel=unit)
        if len(axes.lines) > 1:
            axes.legend()

    return panel


def _aims(runs: Sequence[Run], path: Path) -> Path:
    """For each aim beside a reference: the ratio of every run, as times better than what is aimed for."""
    rows: dict[str, list[Spread]] = {}
    for run in runs:
        for result in run:
            aim = result.figure.aim
            if aim and aim.reference in result.values:
                ratio = result.ratio(aim.reference)
                better = _better(ratio, aim.bound, higher=result.figure.higher_is_better)
                rows.setdefault(f"{result.figure.name} ({aim.reference})", []).append(better)
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.28 * len(rows)))
    for place, spreads in enumerate(reversed(rows.values())):
        for number, spread in enumerate(spreads):
            height = place + (number - (len(spreads) - 1) / 2) * 0.22
            color = COLORS[OURS] if spread.median >= 1 else COLORS["Slurm"]
            axes.plot([spread.least, spread.most], [height, height], color=color, linewidth=1)
            axes.plot([spread.median], [height], "o", color=color, markersize=3)
    axes.axvline(1, color=INK, linewidth=1)
    _logarithmic(axes)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.set_xlabel("1 is the aim, 0.5 half of it (median, least and most of each run's rounds)")
    return _save(figure, path)


def _better(ratio: Spread, bound: float, *, higher: bool) -> Spread:
    if higher:
        return Spread(ratio.median / bound, ratio.least / bound, ratio.most / bound)
    return Spread(bound / ratio.median, bound / ratio.most, bound / ratio.least)


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    least, most = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 300 * least else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(NullLocator())


def _plain(value: float, place: object) -> str:
    return f"{value:,g}"


def _color(name: str) -> str:
    return COLORS.get(name, INK)

"""Results as SVG: a row for each reference, the ratio of ours to it with its range, on a logarithmic scale."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "joblet", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)

from benchmarks.measure import Result, Spread  # noqa: E402

__all__ = ["pyplot", "ratios"]


def ratios(results: list[Result], path: Path) -> None:
    """How many times faster than each reference joblet is; 1 is as fast."""
    rows = [(f"{result.name}: {name}", _speed(result, name)) for result in results for name in result.references]
    rows.reverse()
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.24 * len(rows)))
    for place, (_, speed) in enumerate(rows):
        color = "#2a7f4f" if speed.median >= 1 else "#b3541e"
        axes.plot([speed.least, speed.most], [place, place], color=color, linewidth=1)
        axes.plot([speed.median], [place], "o", color=color, markersize=4)
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_xlabel("times as fast as the reference (median, least and most of the rounds)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _speed(result: Result, reference: str) -> Spread:
    """How many times as fast ours is."""
    ratio = result.ratio(reference)
    if result.higher_is_better:
        return ratio
    return Spread(1 / ratio.median, 1 / ratio.most, 1 / ratio.least)

"""A soak as SVG: what was sampled over its minutes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plots import pyplot
from benchmarks.soak.account import Account

_PANELS = (
    ("memory, MB", 1e-6, {"resident": "resident", "proportional": "proportional"}),
    ("RunJob, ms", 1e3, {"call_p50": "median", "call_p99": "slowest hundredth"}),
    ("RunJob to the news of the end, ms", 1e3, {"end_p50": "median", "end_p99": "slowest hundredth"}),
    ("server's processor time for a job, ms", 1e3, {"processor": ""}),
    ("descriptors, threads", 1, {"descriptors": "descriptors", "threads": "threads"}),
    ("monitors, groups, mounts", 1, {"monitors": "monitors", "groups": "groups", "mounts": "mounts"}),
    ("database, MB: the history", 1e-6, {"database": "database", "log_ahead": "write-ahead log"}),
    ("short jobs ended, thousands", 1e-3, {"jobs": ""}),
)
_COLORS = ("#2a7f4f", "#b3541e", "#44668a")


def draw(account: Account, path: Path) -> None:
    """A panel for each group of series, from zero."""
    figure, panels = pyplot.subplots(4, 2, figsize=(9, 9), sharex=True)
    minutes = [sample.at / 60 for sample in account.samples]
    for axes, (title, scale, series) in zip(panels.flat, _PANELS, strict=True):
        for color, (name, label) in zip(_COLORS, series.items(), strict=False):
            values = [getattr(sample, name) for sample in account.samples]
            scaled = [float("nan") if value is None else value * scale for value in values]
            axes.plot(minutes, scaled, color=color, linewidth=0.9, label=label)
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)

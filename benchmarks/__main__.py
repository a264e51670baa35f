"""`python -m benchmarks`: hold the contests, print and keep what they show.

python -m benchmarks                     all of them, a quarter of an hour
python -m benchmarks --short             each for a moment, to see that all work
python -m benchmarks launch logs         only these
python -m benchmarks --runs 3 --docs     three times, and write tables and plots into docs/
python -m benchmarks --from FILE --docs  write what has been measured before
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import uvloop

from benchmarks import machine, publish, report
from benchmarks.measure import Contest, Result, hold

CASES = ("launch", "rate", "rpc", "logs", "memory", "history", "workflows", "vm")
ONCE = ("vm",)
"""in the first run only: a machine is built and booted for it"""


async def run(names: list[str], options: argparse.Namespace) -> tuple[dict[str, object], list[report.Run]]:
    """As many runs as are asked for; what they have shown is kept as it comes."""
    task = asyncio.current_task()
    assert task is not None
    # What was started ends with its context.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    described = machine.describe()
    runs: list[list[Result]] = []
    for number in range(options.runs):
        runs.append([])
        for name in names if number == 0 else [name for name in names if name not in ONCE]:
            case = importlib.import_module(f"benchmarks.cases.{name}")
            async with aclosing(case.contests(short=options.short)) as contests:
                async for contest in contests:
                    for result in await results_of(contest, options):
                        print(report.line(result), flush=True)
                        runs[-1].append(result)
                    if options.out:
                        report.save(options.out / "results.json", described, runs)
    return described, list(runs)


async def results_of(contest: Contest | Result, options: argparse.Namespace) -> list[Result]:
    """Of a contest that is held now, or has been elsewhere."""
    if isinstance(contest, Result):
        return [contest]
    return await hold(contest, rounds=options.rounds, short=options.short)


def main() -> int:
    parser = argparse.ArgumentParser(
        "benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; none is all")
    parser.add_argument("--short", action="store_true", help="each for a moment, to see that all work")
    parser.add_argument("--rounds", type=int, help="instead of each contest's own number")
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        choices=range(1, 10),
        metavar="N",
        help="of the whole, beside each other in the table",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results.json, table.md and, by matplotlib, plots")
    parser.add_argument("--docs", action="store_true", help="write tables and plots into docs/ (needs matplotlib)")
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="measure nothing, take this results.json"
    )
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.source:
        described, runs = report.load(options.source)
    else:
        try:
            described, runs = uvloop.run(run(options.cases or list(CASES), options))
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "table.md").write_text(f"{report.aims(runs)}\n{report.table(runs)}")
        _draw(runs, options.out)
    if options.docs:
        publish.publish(described, runs)
    return 0


def _draw(runs: list[report.Run], folder: Path) -> None:
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"no plots: {error}", file=sys.stderr)
    else:
        plots.draw(runs, folder)


sys.exit(main())

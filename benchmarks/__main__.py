"""`python -m benchmarks`: hold the contests, print a table, write JSON and plots.

python -m benchmarks                     all of them, half an hour
python -m benchmarks --short             each for a moment, to see that all work
python -m benchmarks launch logs         only these
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import uvloop

from benchmarks import report
from benchmarks.measure import Result, hold

CASES = ("launch", "rate", "rpc", "logs", "memory", "history", "workflows")


async def run(names: list[str], *, short: bool, rounds: int | None) -> list[Result]:
    results = []
    for name in names:
        case = importlib.import_module(f"benchmarks.cases.{name}")
        async for contest in case.contests(short=short):
            result = await hold(contest, rounds=1 if short else rounds)
            print(report.line(result), flush=True)
            results.append(result)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; none is all")
    parser.add_argument("--short", action="store_true", help="each for a moment, to see that all work")
    parser.add_argument("--rounds", type=int, help="instead of each contest's own number")
    parser.add_argument("--out", type=Path, help="directory for results.json and table.md")
    parser.add_argument("--plot", type=Path, help="file for the ratios as SVG (needs matplotlib)")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    results = uvloop.run(run(options.cases or list(CASES), short=options.short, rounds=options.rounds))
    if options.out:
        report.write(options.out, results)
    if options.plot:
        from benchmarks import plots

        plots.ratios(results, options.plot)
    return 0


sys.exit(main())

"""The steps of etl.yaml: rows go through the directory that all of them share, totals through outputs."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

SHARED = Path("/workflow")
PARTS = 3


def extract(rows: int) -> None:
    """Write orders, which a real one would ask a database for, into as many files as there are parts."""
    for part in range(PARTS):
        with (SHARED / f"part-{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("order", "cents"))
            writer.writerows((number, number * 7 % 1000) for number in range(part, rows, PARTS))
    print(f"{rows} orders in {PARTS} parts")


def transform(part: int) -> None:
    """Add up one part."""
    with (SHARED / f"part-{part}.csv").open(newline="") as file:
        total = sum(int(row["cents"]) for row in csv.DictReader(file))
    with Path(os.environ["JOBLET_OUTPUT"]).open("a") as outputs:
        outputs.write(f"total={total}\n")


def load(totals: list[int]) -> None:
    """Say what it comes to."""
    print(f"revenue {sum(totals) / 100:.2f} of {len(totals)} parts")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["extract", rows]:
            extract(int(rows))
        case ["transform", part]:
            transform(int(part))
        case ["load", *totals]:
            load([int(total) for total in totals])
        case _:
            raise SystemExit(2)

"""Leaves out what was not measured, measured twice, or cannot be."""

import csv
import os
import pathlib
import statistics

SHARED = pathlib.Path(os.environ["JOBLET_SHARED"])


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def main() -> None:
    with (SHARED / "raw.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["date"], number(row["temperature_c"]), number(row["demand_mwh"])) for row in csv.DictReader(file)]
    complete = [row for row in rows if None not in row]
    once = list({row[0]: row for row in complete}.values())
    middle = statistics.median(demand for _, _, demand in once)
    spread = statistics.median(abs(demand - middle) for _, _, demand in once)
    plausible = [row for row in once if abs(row[2] - middle) <= 8 * spread]
    with (SHARED / "clean.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(plausible)
    print(f"{len(rows) - len(complete)} incomplete, {len(complete) - len(once)} sent twice")
    print(f"{len(once) - len(plausible)} further than {8 * spread:.0f} MWh from the median of {middle:.0f} MWh")
    print(f"{len(plausible)} days are left")
    with open(os.environ["JOBLET_OUTPUT"], "a", encoding="utf-8") as output:
        print(f"rows={len(plausible)}", file=output)
        print(f"dropped={len(rows) - len(plausible)}", file=output)


if __name__ == "__main__":
    main()

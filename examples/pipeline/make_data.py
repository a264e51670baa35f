"""Writes data/demand.csv: two years of a town that does not exist, with what goes wrong when things are measured."""

import csv
import datetime
import math
import pathlib
import random

FIRST = datetime.date(2023, 1, 1)
DAYS = 731


def main() -> None:
    chance = random.Random(20230101)
    rows = []
    weather = 0.0
    for number in range(DAYS):
        date = FIRST + datetime.timedelta(days=number)
        weather = 0.75 * weather + chance.gauss(0, 2.2)
        temperature = 11.5 - 11.5 * math.cos(2 * math.pi * (number - 20) / 365.25) + weather
        heating, cooling = max(0.0, 16 - temperature), max(0.0, temperature - 20)
        demand = 292 + 5.1 * heating + 7.4 * cooling - 27 * (date.weekday() >= 5) + chance.gauss(0, 8.5)
        rows.append([date.isoformat(), f"{temperature:.1f}", f"{demand:.1f}"])
    for number in chance.sample(range(DAYS), 14):
        rows[number][chance.choice([1, 2])] = chance.choice(["", "n/a"])
    for number in chance.sample(range(DAYS), 5):
        rows[number][2] = chance.choice(["-9999.0", "0.0", "9999.9"])
    for number in sorted(chance.sample(range(DAYS), 6), reverse=True):
        rows.insert(number, list(rows[number]))  # sent twice
    target = pathlib.Path(__file__).parent / "data/demand.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", "temperature_c", "demand_mwh"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()

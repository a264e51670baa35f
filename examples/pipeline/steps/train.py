"""Ridge regression of the demand on powers of the temperature and on whether it is a weekend."""

import argparse
import csv
import datetime
import json
import math
import os
import pathlib

SHARED = pathlib.Path(os.environ["JOBLET_SHARED"])


def features(temperature, weekend, degree):
    """The temperature is brought to about -1 to 1, so that its powers do not run away."""
    scaled = (temperature - 12) / 20
    return [1.0, float(weekend), *(scaled**power for power in range(1, degree + 1))]


def solve(matrix, right):
    """The solution of a system of linear equations, by Gauss's elimination."""
    size = len(right)
    rows = [[*row, right[number]] for number, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda number: abs(rows[number][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for other in range(column + 1, size):
            factor = rows[other][column] / rows[column][column]
            rows[other] = [value - factor * rows[column][place] for place, value in enumerate(rows[other])]
    solution = [0.0] * size
    for number in reversed(range(size)):
        known = sum(rows[number][other] * solution[other] for other in range(number + 1, size))
        solution[number] = (rows[number][size] - known) / rows[number][number]
    return solution


def fit(inputs, targets, ridge):
    """Coefficients with the least squared error; `ridge` times their own squares counts as error, but for the first."""
    size = len(inputs[0])
    matrix = [[sum(row[one] * row[other] for row in inputs) for other in range(size)] for one in range(size)]
    for number in range(1, size):
        matrix[number][number] += ridge * len(inputs)
    right = [sum(row[one] * targets[number] for number, row in enumerate(inputs)) for one in range(size)]
    return solve(matrix, right)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--degree", type=int, required=True)
    parser.add_argument("--ridge", type=float, required=True)
    parser.add_argument("--holdout", type=int, required=True)
    options = parser.parse_args()
    with (SHARED / "clean.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    days = [(datetime.date.fromisoformat(date), float(warm), float(demand)) for date, warm, demand in rows]
    inputs = [features(warm, date.weekday() >= 5, options.degree) for date, warm, _ in days]
    targets = [demand for _, _, demand in days]
    learnt = [number for number in range(len(days)) if number % options.holdout]
    tested = range(0, len(days), options.holdout)
    model = fit([inputs[number] for number in learnt], [targets[number] for number in learnt], options.ridge)
    errors = [targets[number] - sum(map(float.__mul__, model, inputs[number])) for number in tested]
    rmse = math.sqrt(sum(error * error for error in errors) / len(errors))
    saved = {"degree": options.degree, "coefficients": model, "rmse": rmse, "tested": len(errors)}
    (SHARED / f"model-{options.degree}.json").write_text(json.dumps(saved), encoding="utf-8")
    with open(os.environ["JOBLET_OUTPUT"], "a", encoding="utf-8") as output:
        print(f"rmse={rmse:.3f}", file=output)
    print(f"degree {options.degree}: off by {rmse:.1f} MWh on {len(errors)} days that it has not seen")


if __name__ == "__main__":
    main()

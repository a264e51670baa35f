"""Draws the days and both models: to report.svg in the shared directory, and to its own log."""

import argparse
import csv
import datetime
import json
import os
import pathlib
import sys

SHARED = pathlib.Path(os.environ["JOBLET_SHARED"])
WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 620, 96, 456
COLDEST, WARMEST, LEAST, MOST = -7, 31, 230, 410
INK, FAINT, LINE = "#1f2933", "#6b7785", "#e3e8ee"
BETTER, WORSE, WORKDAY, WEEKEND = "#0b6e4f", "#c2571a", "#7d97b8", "#d9b26f"


def x(temperature):
    return LEFT + (temperature - COLDEST) / (WARMEST - COLDEST) * (RIGHT - LEFT)


def y(demand):
    return BOTTOM - (demand - LEAST) / (MOST - LEAST) * (BOTTOM - TOP)


def predict(model, temperature):
    """On a working day."""
    first, _, *powers = model["coefficients"]
    scaled = (temperature - 12) / 20
    return first + sum(value * scaled ** (number + 1) for number, value in enumerate(powers))


def text(left, top, words, color=INK, size=12, anchor="start", weight="normal"):
    return (
        f'<text x="{left:.1f}" y="{top:.1f}" fill="{color}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{words}</text>'
    )


def axes():
    for demand in range(240, MOST + 1, 40):
        yield f'<path d="M{LEFT} {y(demand):.1f}H{RIGHT}" stroke="{LINE}"/>'
        yield text(LEFT - 8, y(demand) + 4, demand, FAINT, anchor="end")
    for temperature in range(-5, WARMEST + 1, 5):
        yield text(x(temperature), BOTTOM + 18, str(temperature).replace("-", "\N{MINUS SIGN}"), FAINT, anchor="middle")
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="{FAINT}"/>'
    yield text(LEFT - 8, TOP - 12, "MWh a day", FAINT, anchor="start")
    yield text(RIGHT, BOTTOM + 38, "mean temperature of the day, °C", FAINT, anchor="end")


def points(days, color):
    yield f'<g fill="{color}" fill-opacity="0.6">'
    for _, temperature, demand in days:
        yield f'<circle cx="{x(temperature):.1f}" cy="{y(demand):.1f}" r="2.6"/>'
    yield "</g>"


def curve(model, days, color):
    """As far as there are days."""
    ends = min(warm for _, warm, _ in days), max(warm for _, warm, _ in days)
    steps = [ends[0] + (ends[1] - ends[0]) * number / 80 for number in range(81)]
    path = "L".join(f"{x(warm):.1f} {y(predict(model, warm)):.1f}" for warm in steps)
    return f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2.6" stroke-linejoin="round"/>'


def bars(models, best):
    """The error of each model, beside the picture."""
    left, longest = 660, 150
    most = max(model["rmse"] for model in models)
    yield text(left, TOP - 12, f"error on {models[0]['tested']} unseen days", FAINT)
    for number, model in enumerate(models):
        top, color = TOP + 14 + 64 * number, BETTER if model["degree"] == best else WORSE
        words = "straight line" if model["degree"] == 1 else f"curve of degree {model['degree']}"
        yield text(left, top, words, color, 13, weight="600")
        width = model["rmse"] / most * longest
        yield f'<rect x="{left}" y="{top + 8}" width="{width:.1f}" height="14" rx="2" fill="{color}"/>'
        yield text(left, top + 38, f"{model['rmse']:.1f} MWh", INK)
    for number, (color, words) in enumerate([(WORKDAY, "working day"), (WEEKEND, "weekend")]):
        top = TOP + 178 + 22 * number
        yield f'<circle cx="{left + 5}" cy="{top - 4}" r="4" fill="{color}"/>'
        yield text(left + 18, top, words, FAINT)
    yield text(left, TOP + 232, "Both lines are for", FAINT)
    yield text(left, TOP + 248, "working days.", FAINT)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--best", type=int, required=True)
    parser.add_argument("--dropped", type=int, required=True)
    options = parser.parse_args()
    with (SHARED / "clean.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    days = [(datetime.date.fromisoformat(date), float(warm), float(demand)) for date, warm, demand in rows]
    models = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SHARED.glob("model-*.json"))]
    models.sort(key=lambda model: model["degree"] == options.best)  # the better one is drawn over the other
    counted = f"{len(days)} days from {days[0][0]} to {days[-1][0]}; {options.dropped} rows were left out"
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        "font-family=\"Inter,'Segoe UI',Roboto,'DejaVu Sans',sans-serif\">",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT - 8, 36, "Demand for electricity by temperature", size=20, weight="600"),
        text(LEFT - 8, 58, counted, FAINT, 13),
        *axes(),
        *points([day for day in days if day[0].weekday() < 5], WORKDAY),
        *points([day for day in days if day[0].weekday() >= 5], WEEKEND),
        *(curve(model, days, BETTER if model["degree"] == options.best else WORSE) for model in models),
        *bars(sorted(models, key=lambda model: model["degree"]), options.best),
        "</svg>",
    ]
    picture = "\n".join(drawn) + "\n"
    (SHARED / "report.svg").write_text(picture, encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(picture)


if __name__ == "__main__":
    main()

"""Training without a GPU that survives its own end: the state is saved after each epoch, and is where it begins."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

STATE = Path("/workflow/state.json")
TRY_AGAIN = 75
"""the exit code that train.yaml takes for a breakdown worth another attempt (EX_TEMPFAIL of sysexits.h)"""
POINTS = [(x / 10, 3 * x / 10 + 1) for x in range(20)]


def load() -> tuple[int, float, float]:
    """Epochs that are done, and the line's slope and height."""
    if not STATE.exists():
        return 0, 0.0, 0.0
    state = json.loads(STATE.read_text())
    return state["epoch"], state["slope"], state["height"]


def save(epoch: int, slope: float, height: float) -> None:
    """Replace the state: there is always a whole one, whenever we are killed."""
    fresh = STATE.with_suffix(".new")
    fresh.write_text(json.dumps({"epoch": epoch, "slope": slope, "height": height}))
    fresh.replace(STATE)


def train(slope: float, height: float, rounds: int = 20, rate: float = 0.05) -> tuple[float, float, float]:
    """One epoch: the better line, and its loss."""
    for _ in range(rounds):
        errors = [(slope * x + height - y, x) for x, y in POINTS]
        slope -= rate * 2 * sum(error * x for error, x in errors) / len(POINTS)
        height -= rate * 2 * sum(error for error, _ in errors) / len(POINTS)
    return slope, height, sum(error**2 for error, _ in errors) / len(POINTS)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    done, slope, height = load()
    print(f"beginning after epoch {done}")
    loss = 0.0
    for epoch in range(done + 1, epochs + 1):
        slope, height, loss = train(slope, height)
        save(epoch, slope, height)
        print(f"epoch {epoch}: loss {loss:.5f}", flush=True)
        if done == 0 and os.environ.get("FAIL_AT") == str(epoch):
            print("the machine has a bad day", file=sys.stderr)
            return TRY_AGAIN
    with Path(os.environ["JOBLET_OUTPUT"]).open("a") as outputs:
        outputs.write(f"epochs={epochs}\nloss={loss:.5f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

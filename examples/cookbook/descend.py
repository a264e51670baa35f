"""Gradient descent on (x - 1)^2 + 0.1 x^4: one combination of a sweep. Prints how many iterations it took."""

from __future__ import annotations

import argparse
from pathlib import Path

SHARED = Path("/workflow")
"""which all jobs of a workflow see"""


def iterations(start: float, step: float, momentum: float) -> int:
    """How many steps it takes until the slope is flat."""
    x, speed = start, 0.0
    for count in range(1, 10_000):
        slope = 2 * (x - 1) + 0.4 * x**3
        speed = momentum * speed - step * slope
        x += speed
        if abs(slope) < 1e-6:
            return count
    return 10_000


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--start", "--step", "--momentum"):
        parser.add_argument(name, type=float, required=True)
    given = parser.parse_args()
    took = iterations(given.start, given.step, given.momentum)
    line = f"{took} iterations with step {given.step:g} and momentum {given.momentum:g}"
    print(line)
    (SHARED / f"result-{given.step:g}-{given.momentum:g}").write_text(f"{line}\n")

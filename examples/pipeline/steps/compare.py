"""Tells the better of two models by their errors, which are given as DEGREE=ERROR."""

import os
import sys


def main() -> None:
    errors = {degree: float(error) for degree, _, error in (argument.partition("=") for argument in sys.argv[1:])}
    best, worst = min(errors, key=errors.get), max(errors, key=errors.get)
    with open(os.environ["JOBLET_OUTPUT"], "a", encoding="utf-8") as output:
        print(f"best={best}", file=output)
    print(f"degree {best} is better: {errors[best]:.1f} MWh, where degree {worst} has {errors[worst]:.1f} MWh")


if __name__ == "__main__":
    main()

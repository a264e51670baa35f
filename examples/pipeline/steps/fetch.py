"""Puts what was measured where all jobs of the workflow see it."""

import os
import pathlib
import sys

SHARED = pathlib.Path(os.environ["JOBLET_SHARED"])
TRY_AGAIN = 75
"""EX_TEMPFAIL (sysexits.h): the workflow gives this exit status another attempt"""


def main() -> None:
    try:
        text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    except OSError as error:
        print(f"{sys.argv[1]} cannot be read now: {error.strerror}")
        raise SystemExit(TRY_AGAIN) from None
    header, *rows = text.splitlines()
    if header != "date,temperature_c,demand_mwh":
        raise SystemExit(f"{sys.argv[1]} has other columns: {header}")
    (SHARED / "raw.csv").write_text(text, encoding="utf-8")
    with open(os.environ["JOBLET_OUTPUT"], "a", encoding="utf-8") as output:
        print(f"rows={len(rows)}", file=output)
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()

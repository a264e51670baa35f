"""`python -m benchmarks.instructions`: count the instructions of a launch, and compare them with the record.

As root, with valgrind and musl-gcc. The shim's counts are exact: its processes are run one instruction at a time. The
server's are valgrind's and depend on the Python, so what is compared is how many calls that do nothing take as many.
Exit status 1: beyond the bound.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from benchmarks.instructions import record, server, shim


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help=f"write {record.PATH.name} anew")
    parser.add_argument("parts", nargs="*", metavar="PART", help="shim, server; none is both")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(record.BOUNDS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    then = dict(record.load()) if record.PATH.exists() else {}
    worse = False
    for part in options.parts or record.BOUNDS:
        now = shim.count() if part == "shim" else asyncio.run(server.count())
        print(f"{part}: {', '.join(f'{name} {value}' for name, value in now.items())}", flush=True)
        if options.record:
            then[part] = now
        elif reasons := record.differences(part, now, then[part]):
            print(f"{part}: not comparable: {'; '.join(reasons)}")
        else:
            found = record.compare(part, now, then[part])
            print(*found, sep="\n", flush=True)
            worse = worse or any(one.worse for one in found)
    if options.record:
        record.save(then)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

"""Start-up of rnx: CPU time against that of Python with the imports that cannot be avoided.

    python benchmarks/startup.py [--rounds N]

Starts a server of its own, as root. Every round starts each once, in random order, so that what else the machine does
falls on all of them. Needs compiled bytecode: an installed package, or PYTHONPYCACHEPREFIX.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness import Server, make_certificates

UNAVOIDABLE = "import typer, ssl, asyncio, grpclib.client, sys; sys.modules['pydantic'] = None; import betterproto2"
BASES = {"python -c pass": "pass", "with typer": "import typer", "with typer, grpclib, betterproto2": UNAVOIDABLE}
COMMANDS = {
    ("--help",): "with typer",
    ("version",): "with typer",
    ("status", "1"): "with typer, grpclib, betterproto2",
}


def cpu_ms(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=30)
    rounds: int = arguments.parse_args().rounds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="joblet-startup-") as name:
        folder = Path(name)
        server = Server(folder, make_certificates(folder / "certs")).start()
        try:
            server.rnx("run", "true")
            starts = {label: [sys.executable, "-c", code] for label, code in BASES.items()}
            starts |= {f"rnx {' '.join(words)}": server.rnx_command(*words) for words in COMMANDS}
            taken: dict[str, list[float]] = {label: [] for label in starts}
            for each in range(rounds + 1):
                for label in random.sample(list(starts), len(starts)):
                    spent = cpu_ms(starts[label])
                    if each:  # the first compiles
                        taken[label].append(spent)
        finally:
            server.close()
    bases = {f"rnx {' '.join(words)}": base for words, base in COMMANDS.items()}
    print(f"{'CPU ms, of ' + str(rounds) + ' rounds':36} {'least':>6} {'median':>7}  ratio of medians")
    for label, times in taken.items():
        middle = statistics.median(times)
        ratio = (
            f"{middle / statistics.median(taken[bases[label]]):.2f} of python {bases[label]}" if label in bases else ""
        )
        print(f"{label:36} {min(times):6.1f} {middle:7.1f}  {ratio}".rstrip())


if __name__ == "__main__":
    main()

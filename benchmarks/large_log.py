"""`rnx log` of a log of 10 GB: memory of both sides, and what goes over the wire for parts of it.

    python benchmarks/large_log.py [--size GB]

Needs root and room for the log on the disk of the temporary directory; what it makes is removed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness import Server, make_certificates
from wire import read_log

LINE = "a line of output such as there are many, of eighty bytes with its newline......"
PARTS = ((), ("--tail=10",), ("--grep=needle",), ("--grep=(needle|nadel) in",), ("--since=1s",))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", type=float, default=10.0, help="GB of output")
    size = int(arguments.parse_args().size * 1e9)
    with tempfile.TemporaryDirectory(prefix="joblet-large-log-") as name:
        folder = Path(name)
        room = shutil.disk_usage(folder).free
        if room < size * 1.2:
            sys.exit(f"needs room for {size / 1e9:g} GB below {folder.parent}, where {room / 1e9:.1f} GB are free")
        server = Server(folder, make_certificates(folder / "certs")).start()
        try:
            measure(server, size)
        finally:
            server.close()


def measure(server: Server, size: int) -> None:
    half = f"yes '{LINE}' | head -c {size // 2}; echo"
    began = time.perf_counter()
    server.rnx("run", "--wait", "bash", "-c", f"{half}; echo needle in the hay; {half}", timeout=3600)
    took = time.perf_counter() - began
    log = (server.state / "jobs/1/log").stat()
    print(f"a job wrote {log.st_size / 1e9:.2f} GB in {took:.0f} s, {log.st_blocks * 512 / 1e9:.2f} GB of the disk\n")
    server.rnx("run", "--wait", "true")
    print(f"{'rnx log':36} {'seconds':>7} {'printed':>10} {'over the wire':>13} {'rnx MB':>6} {'server MB':>9}")
    for job_id, parts in (("2", ((),)), ("1", PARTS)):
        for part in parts:
            began = time.perf_counter()
            seen = read_log(server, "--follow=false", *part, job_id)
            took = time.perf_counter() - began
            what = " ".join(part) or ("of an empty log" if job_id == "2" else "")
            sizes = f"{short(seen.written):>10} {short(seen.received):>13}"
            print(
                f"{what:36} {took:7.1f} {sizes} {seen.client_kb / 1024:6.0f} {seen.server_kb / 1024:9.0f}", flush=True
            )


def short(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


if __name__ == "__main__":
    main()

"""Fuzz a real server with malformed TLS, HTTP/2, gRPC and protobuf, and the parsers beside it.

    PYTHONPATH=tests python tests/fuzz/campaign.py [--minutes N] [--seed N] [--only CASE] [--case N]

A case is drawn from the seed, its name and its number. A finding is printed with what does it again: `--seed N --only
CASE --case N`, or the file with the input of a parser. The server is judged all the time: it does not end, says nothing
of an error, keeps no other client waiting, answers with the right codes, and grows neither in memory nor descriptors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType

import bytes_of_tls
import calls_of_grpc
import frames_of_http2
from attacked import Attacked, Finding
from harness import PATIENCE, ROOT, compile_stock_client, make_certificates

Case = Callable[[Attacked, Random], None]
HERE = Path(__file__).parent
CASES: tuple[Case, ...] = (*bytes_of_tls.CASES, *frames_of_http2.CASES, *calls_of_grpc.CASES)
"""one that comes twice is run twice as often"""
NAMES = sorted({case.__name__ for case in CASES})
_WARM = 0.2
"""of the time, until memory is what it will be"""
_SAMPLE_SECONDS = 1.0


def attack(
    target: Attacked, seed: int, seconds: float, names: list[str], first: int = 0, most: int = 0
) -> Counter[str]:
    """Run cases for so long, or at `most` so many, and judge the server: how many of which. Raises Finding."""
    cases = [case for case in CASES if case.__name__ in names]
    done: Counter[str] = Counter()
    began = sampled = time.monotonic()
    warm, number = False, first
    target.warm()
    while (now := time.monotonic()) < began + seconds and not (most and number >= first + most):
        case = cases[number % len(cases)]
        try:
            case(target, Random(f"{seed} {case.__name__} {number}"))
            target.check()
        except Finding as finding:
            raise Finding(f"--seed {seed} --only {case.__name__} --case {number}: {finding}") from finding
        except OSError:  # the server has ended the connection: that is its right
            target.check()
        done[case.__name__] += 1
        number += 1
        if not warm and now > began + _WARM * seconds:
            warm = True
            target.warm()
        if now > sampled + _SAMPLE_SECONDS:
            sampled = now
            target.sample()
    return done


def run(stock: tuple[ModuleType, ModuleType], folder: Path, seed: int, seconds: float, **which: object) -> str:
    """The attack on a server of its own, from its start to its end; the figures. Raises Finding."""
    certificates = make_certificates(folder / "certs")
    target = Attacked(folder, certificates, stock)
    try:
        done = attack(target, seed, seconds, **which)  # type: ignore[arg-type]
        target.sample()
        figures = target.conclude()
    finally:
        target.close()
    told = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    return f"{done.total()} cases ({told}); {figures}"


def fuzz_parsers(seconds: float, seed: int, folder: Path) -> subprocess.Popen[str]:
    """The parsers, in a process of their own that ends after so long; what it prints is in `folder`/parsers.log."""
    with (folder / "parsers.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, HERE / "guided.py", f"--seconds={max(int(seconds), 1)}", f"--seed={seed}"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def conclude_parsers(process: subprocess.Popen[str], folder: Path) -> str:
    """Its figures. Raises Finding."""
    status = process.wait(PATIENCE + 60)
    log = (folder / "parsers.log").read_text(errors="replace")
    if status != 0:
        raise Finding(f"a parser, status {status}; the input is in {folder}:\n{log[-6000:]}")
    figures = dict(line.removeprefix("stat::").split(":", 1) for line in log.splitlines() if line.startswith("stat::"))
    return f"{figures['number_of_executed_units'].strip()} inputs, memory {figures['peak_rss_mb'].strip()} MiB at most"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="0 is one by chance")
    parser.add_argument("--only", action="append", choices=NAMES, help="no other cases, and not the parsers")
    parser.add_argument("--case", type=int, help="of this number, once")
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(4))
    folder = Path(tempfile.mkdtemp(prefix="joblet-fuzz-"))
    print(f"campaign: --seed {seed}, in {folder}", flush=True)
    stock = compile_stock_client(folder / "stock", ROOT / "protos/joblet.proto")
    seconds = options.minutes * 60
    parsers = None if options.only else fuzz_parsers(seconds, seed, folder)
    try:
        names = options.only or NAMES
        one = {} if options.case is None else {"first": options.case, "most": 1}
        print(f"server: {run(stock, folder, seed, seconds, names=names, **one)}", flush=True)
        if parsers is not None:
            print(f"parsers: {conclude_parsers(parsers, folder)}", flush=True)
    except Finding as finding:
        print(f"FOUND: {finding}", flush=True)
        return 1
    finally:
        if parsers is not None and parsers.poll() is None:
            parsers.kill()
            parsers.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fuzz the parsers in this process, guided by the lines that an input reaches (atheris, which is libFuzzer).

    PYTHONPATH=tests python tests/fuzz/guided.py [--seconds N] [--seed N] [--only NAME] [--corpus DIR]
    PYTHONPATH=tests python tests/fuzz/guided.py FILE...
    PYTHONPATH=tests python tests/fuzz/guided.py --keep DIR

The first form begins with the kept corpus and fails on the first finding, which it leaves as a file; the second one
gives such files to the parsers again. `--corpus` leaves all that was found to reach new lines in a directory, and the
third form takes the short ones of these into the kept corpus.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["joblet", "cronsim", "grpclib", "h2", "hpack", "hyperframe", "yaml"]):
    from parsers import PARSERS

import corpus

NAMES = sorted(PARSERS)
PATIENCE = 5.0
"""seconds of processor time, with the instruments: what takes so long would hold up a server's event loop"""
LONGEST = 20_000
"""bytes"""
MEMORY = 1024
"""MB"""


def judge(name: str, data: bytes) -> None:
    """Give bytes to a parser; whatever it raises is a finding, and so is the time it takes."""
    began = time.process_time()
    PARSERS[name](data)
    took = time.process_time() - began
    assert took < PATIENCE, f"{name} took {took:.1f}s for {len(data)} bytes"


def take(data: bytes) -> None:
    """An input of the fuzzer: which parser, and what it reads."""
    if data:
        judge(NAMES[data[0] % len(NAMES)], data[1:])


def seeds(folder: Path, names: list[str]) -> None:
    """Write the kept corpus as inputs of the fuzzer."""
    for name in names:
        for number, data in enumerate(corpus.kept(name)):
            (folder / f"{name}-{number}").write_bytes(bytes([NAMES.index(name)]) + data)


def fuzz(seconds: int, seed: int, names: list[str], folder: Path) -> None:
    """Never returns: libFuzzer ends the process, with a status other than 0 when it has found something."""
    seeds(folder, names)
    print(f"guided: {', '.join(names)}; --seed {seed}", flush=True)
    options = [
        *(f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY}"),
        *("-timeout=60", "-print_final_stats=1", "-verbosity=1", "-reload=0"),
    ]
    allowed = {NAMES.index(name) for name in names}
    atheris.Setup(
        [sys.argv[0], *options, str(folder)],
        lambda data: take(data) if data and data[0] % len(NAMES) in allowed else None,
    )
    atheris.Fuzz()


def again(files: list[Path]) -> None:
    """Give inputs to the parsers once more."""
    for file in files:
        data = file.read_bytes()
        print(f"{file}: {NAMES[data[0] % len(NAMES)]}, {len(data) - 1} bytes", flush=True)
        take(data)


def keep(folder: Path) -> None:
    """Take the short inputs of a run into the kept corpus."""
    inputs = [data for path in folder.iterdir() if (data := path.read_bytes())]
    for index, name in enumerate(NAMES):
        corpus.add(name, {data[1:] for data in inputs if data[0] % len(NAMES) == index})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 is one by chance")
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--corpus", type=Path, help="keep the corpus in this directory")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="take short inputs of this directory into the corpus")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    if options.files or options.keep:
        again(options.files)
        if options.keep:
            keep(options.keep)
        return
    seed = options.seed or int.from_bytes(os.urandom(4))
    folder = options.corpus or Path(tempfile.mkdtemp(prefix="joblet-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    fuzz(options.seconds, seed, options.only or NAMES, folder)


if __name__ == "__main__":
    main()

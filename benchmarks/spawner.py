"""Starts one command line as often as it is told to on stdin, and says how long that took.

Requests are lines: `exec COUNT 1` for the mean seconds from spawn to the first byte that the command writes, or
`end COUNT WORKERS` for the seconds that so many took to run to their ends.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from benchmarks.commands import NUMBER

_NUMBERS = count(1)


def line() -> list[str]:
    number = f"{os.getpid()}-{next(_NUMBERS)}"
    return [word.replace(NUMBER, number) for word in sys.argv[1:]]


def to_exec(times: int) -> float:
    total = 0.0
    for _ in range(times):
        argv = line()
        receive, send = os.pipe()
        began = time.perf_counter()
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, send, 1)])
        os.close(send)
        if not os.read(receive, 1):
            raise RuntimeError(f"{argv[0]} has not run its command")
        total += time.perf_counter() - began
        os.close(receive)
        os.waitpid(pid, 0)
    return total / times


def to_end(times: int, workers: int) -> float:
    lines = [line() for _ in range(times)]
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for argv, status in zip(lines, pool.map(run, lines), strict=True):
            if status:
                raise RuntimeError(f"{argv[0]} ended with {status}")
    return time.perf_counter() - began


def run(argv: list[str]) -> int:
    pid = os.posix_spawnp(
        argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


for request in sys.stdin:
    what, times, workers = request.split()
    taken = to_exec(int(times)) if what == "exec" else to_end(int(times), int(workers))
    print(taken, flush=True)

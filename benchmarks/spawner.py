"""Starts one command line as often as it is told to on stdin, and says how long that took.

Requests are lines: `exec COUNT WORKERS` for the seconds, of each, from spawn to the first byte that the command
writes, or `end COUNT WORKERS` for the seconds that so many took to run to their ends. Answers are JSON.
"""

from __future__ import annotations

import json
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


def to_exec(times: int, workers: int) -> list[float]:
    lines = [line() for _ in range(times)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(until_exec, lines))


def until_exec(argv: list[str]) -> float:
    # Not inherited by what other threads spawn at this moment: the end of the command is then the end of the pipe.
    receive, send = os.pipe2(os.O_CLOEXEC)
    try:
        began = time.perf_counter()
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, send, 1)])
        os.close(send)
        said = os.read(receive, 1)
        took = time.perf_counter() - began
    finally:
        os.close(receive)
    os.waitpid(pid, 0)
    if not said:
        raise RuntimeError(f"{argv[0]} has not run its command")
    return took


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
    do = to_exec if what == "exec" else to_end
    print(json.dumps(do(int(times), int(workers))), flush=True)

"""The real shim, driven through its protocol: the log of a job that keeps stdout and stderr apart."""

from __future__ import annotations

import re
import signal
import subprocess
from itertools import pairwise

import pytest
from shim_harness import Launcher, Shim, job_entries

pytest_plugins = ["shim_harness"]

APART = [("apart", "")]


def streams(shim: Shim) -> tuple[bytes, bytes]:
    """What the index says that stdout and stderr were."""
    marks = shim.stream_marks
    assert not marks or marks[0][1] == 0
    ends = [*marks[1:], (0, len(shim.log), False)]
    parts = [(errors, shim.log[begin:end]) for (_, begin, errors), (_, end, _) in zip(marks, ends, strict=True)]
    return tuple(b"".join(part for of, part in parts if of is errors) for errors in (False, True))  # type: ignore[return-value]


def test_each_byte_is_of_the_stream_that_it_was_written_to(launcher: Launcher) -> None:
    code = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf x; printf y >&2"
    shim = launcher.run("sh", "-c", code, extra=APART)
    out, err = streams(shim)
    assert out == b"".join(b"out %d\n" % i for i in range(1, 6)) + b"x"
    assert err == b"".join(b"err %d\n" % i for i in range(1, 6)) + b"y"
    assert len(shim.log) == len(out) + len(err) == int(shim.record["log_bytes"])


def test_every_change_has_a_record_however_soon_it_comes(launcher: Launcher) -> None:
    """A monitor that is held up meets both pipes full, and takes them one after the other within microseconds."""
    code = "read go < /work/go; for i in 1 2 3; do echo out; echo err >&2; done"
    job = launcher.make_directory()
    subprocess.run(["mkfifo", "-m", "666", job / "work/go"], check=True)
    shim = launcher.start(job_entries("sh", "-c", code, extra=APART), directory=job)
    shim.started()
    with (job / "work/go").open("w") as go:
        shim.signal(signal.SIGSTOP)
        go.write("go\n")
    shim.signal(signal.SIGCONT)
    shim.wait()
    assert streams(shim) == (b"out\n" * 3, b"err\n" * 3)
    assert all(one[2] is not other[2] or other[0] - one[0] >= 10**6 for one, other in pairwise(shim.stream_marks))


def test_merged_streams_stay_in_the_order_of_their_writes(launcher: Launcher) -> None:
    shim = launcher.run("sh", "-c", "for i in 1 2 3; do echo out; echo err >&2; done")
    assert shim.log == b"out\nerr\n" * 3
    assert not any(errors for _, _, errors in shim.stream_marks)


@pytest.mark.parametrize("first", ["1", "2"])
def test_a_stream_that_is_closed_early_leaves_the_other_one(launcher: Launcher, first: str) -> None:
    other = "2" if first == "1" else "1"
    code = f"echo a >&{first}; exec {first}>&-; sleep 0.05; echo b >&{other}; exit 3"
    shim = launcher.run("sh", "-c", code, extra=APART)
    assert shim.record["code"] == "3"
    assert streams(shim) == ((b"a\n", b"b\n") if first == "1" else (b"b\n", b"a\n"))


def test_much_of_both_at_once_arrives_whole(launcher: Launcher) -> None:
    code = "(yes out | head -c 3000000) & (yes errs | head -c 2000000 >&2) & wait"
    out, err = streams(launcher.run("sh", "-c", code, extra=APART))
    assert out == (b"out\n" * 750_000)
    assert err == (b"errs\n" * 400_000)


def test_what_the_monitor_says_is_of_stderr(launcher: Launcher) -> None:
    shim = launcher.run("sh", "-c", "printf 1234567; sleep 0.05; printf lost", extra=APART, log_limit="5")
    out, err = streams(shim)
    assert out == b"12345"
    assert err.startswith(b"\njoblet: output beyond the limit of 5 bytes is not kept\n")
    assert err.endswith(b"\njoblet: 6 bytes of output lost here: log limit reached\n")
    shim = launcher.start(job_entries("nowhere-to-be-found", extra=APART))
    shim.wait()
    assert streams(shim) == (b"", b"joblet: command not found: nowhere-to-be-found\n")


def test_on_a_full_disk_no_byte_is_taken_for_one_of_the_other_stream(launcher: Launcher) -> None:
    """Log and index run out of room at moments of their own."""
    disk = launcher.directory / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "joblet-test", disk], check=True)
    try:
        job = launcher.make_directory(disk)
        filler = job / "filler"
        filler.write_bytes(bytes(900_000))
        rounds = 3000
        write = f"for _ in range({rounds}): os.write(1, b'o' * 30); os.write(2, b'e' * 31)"
        wait = "os.mkdir('full')\nwhile not os.path.exists('go'): time.sleep(0.01)"
        shim = launcher.start(
            job_entries("python3", "-c", f"import os, time\n{write}\n{wait}\n{write}", extra=APART), job
        )
        shim.started()
        while not (job / "work/full").exists():
            assert not shim.is_over(0.005)
        filler.unlink()
        (job / "work/go").mkdir()
        record = shim.wait()
        out, err = streams(shim)
    finally:
        shim.close()
        subprocess.run(["umount", disk], check=True)
    notice = rb"\njoblet: (\d+) bytes of output lost here: no space left on device\n"
    told = sum(map(int, re.findall(notice, err)))
    assert told == int(record["log_lost"]) > 0
    assert set(out) == {ord("o")}
    assert set(re.sub(notice, b"", err)) == {ord("e")}
    assert len(out) + len(re.sub(notice, b"", err)) + told == 2 * rounds * 61


def test_apart_has_no_value(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("true", extra=[("apart", "1")]))
    assert "apart has a value" in shim.report()

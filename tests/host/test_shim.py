"""The real shim, driven through its protocol: the life of a job that runs (shim/PROTOCOL.md)."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_harness import TIMEOUT, UID_BASE, Launcher, job_entries, processes_of, wait_readable, wait_until

pytest_plugins = ["shim_harness"]


def test_a_command_runs_and_its_exit_code_is_recorded(launcher: Launcher) -> None:
    before = time.time_ns()
    shim = launcher.run("sh", "-c", "echo out; echo err >&2; exit 3")
    record = shim.record
    assert (record["version"], record["outcome"], record["code"], record["end"]) == ("1", "exited", "3", "1")
    assert before <= int(record["started_at"]) <= int(record["ended_at"]) <= time.time_ns()
    assert shim.log == b"out\nerr\n"
    assert record["log_bytes"] == "8"
    assert record.keys().isdisjoint({"stop", "log_lost", "reason", "signal"})
    assert shim.status == 0
    assert shim.lock_is_free()


def test_the_files_say_who_watches_and_who_runs(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("cat", "/proc/self/stat"))
    init = shim.started()
    monitor = dict(line.split("=") for line in (shim.directory / "monitor").read_text().splitlines())
    started = dict(line.split("=") for line in (shim.directory / "started").read_text().splitlines())
    record = shim.wait()
    assert int(monitor["pid"]) == shim.pid
    assert monitor["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert int(monitor["start"]) <= int(shim.log.decode().rpartition(")")[2].split()[19])
    assert (int(started["init"]), started["at"]) == (init, record["started_at"])
    assert (shim.directory / "log").stat().st_mode & 0o777 == 0o600


def test_the_lock_is_held_while_the_job_lives(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sleep", "1000"))
    shim.started()
    assert not shim.lock_is_free()
    shim.signal(signal.SIGUSR1)
    shim.wait()
    assert shim.lock_is_free()


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_every_exit_code_arrives(launcher: Launcher, code: int) -> None:
    assert launcher.run("sh", "-c", f"exit {code}").record["code"] == str(code)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL, signal.SIGRTMAX])
def test_a_command_that_a_signal_ends_is_recorded_as_that(launcher: Launcher, number: int) -> None:
    record = launcher.run("sh", "-c", f"kill -{int(number)} $$").record
    assert (record["outcome"], record["signal"]) == ("signaled", str(int(number)))
    assert record.keys().isdisjoint({"code", "stop"})


def test_arguments_and_environment_arrive_exactly(launcher: Launcher) -> None:
    words = ["", " a  b ", "ü\n=", "-x"]
    code = "import os, sys; print(sys.argv[1:], dict(os.environ))"
    shim = launcher.run("python3", "-I", "-c", code, *words, env={"LC_ALL": "C.UTF-8", "EMPTY": "", "A=": "=b"})
    expected = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/work", "LC_ALL": "C.UTF-8", "EMPTY": "", "A": "==b"}
    assert shim.log.decode() == f"{words} {expected}\n"


@pytest.mark.parametrize("more", [0, 1, 5_000_000])
def test_a_log_ends_at_its_limit_and_says_so(launcher: Launcher, more: int) -> None:
    limit = 1_000_000
    shim = launcher.run("head", "-c", str(limit + more), "/dev/zero", log_limit=str(limit))
    notice = (
        f"\njoblet: output beyond the limit of {limit} bytes is not kept\n"
        f"\njoblet: {more} bytes of output lost here: log limit reached\n"
    ).encode()
    assert shim.record["code"] == "0"
    assert shim.log == bytes(limit) + (notice if more else b"")
    assert shim.record["log_bytes"] == str(len(shim.log))
    assert shim.record.get("log_lost", "0") == str(more)


def test_who_follows_a_log_learns_at_once_that_it_is_full(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sh", "-c", "echo 123456789; echo more; sleep 1000", log_limit="10"))
    shim.started()
    shim.await_log(b"123456789\n\njoblet: output beyond the limit of 10 bytes is not kept\n")
    shim.signal(signal.SIGUSR1)
    assert shim.wait()["log_lost"] == "5"


def test_each_line_has_the_time_at_which_it_came(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sh", "-c", "date +%s%N; until [ -e go ]; do sleep 0.01; done; date +%s%N"))
    shim.started()
    wait_until(lambda: shim.log.endswith(b"\n"))
    (shim.directory / "work" / "go").touch()
    shim.wait()
    offsets = [offset for _, offset in shim.marks]
    assert offsets == [0, 20]
    for line in re.finditer(rb"\d+", shim.log):
        came, _ = shim.marks[bisect_right(offsets, line.start()) - 1]
        assert int(line[0]) - 1_000_000 <= came <= int(shim.record["ended_at"])
    assert (shim.directory / "index").stat().st_mode & 0o777 == 0o600


def test_a_flow_of_lines_has_at_most_a_mark_each_millisecond(launcher: Launcher) -> None:
    shim = launcher.run("dd", "if=/dev/zero", "bs=80", "count=200000", "status=none")
    times, offsets = zip(*shim.marks, strict=True)
    assert offsets[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(offsets))
    assert offsets[-1] < len(shim.log) == 80 * 200000
    assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(times))


def test_a_job_without_output_has_an_empty_index(launcher: Launcher) -> None:
    assert launcher.run("true").marks == []


def test_what_is_beyond_the_limit_of_the_log_has_no_marks(launcher: Launcher) -> None:
    code = "for i in 1 2 3 4 5; do echo 123456789; sleep 0.01; done"
    shim = launcher.run("sh", "-c", code, log_limit="25")
    notices = [match.start() for match in re.finditer(rb"\njoblet: ", shim.log)]
    assert (len(notices), notices[0]) == (2, 25)
    assert {0} <= {offset for _, offset in shim.marks} <= {0, 10, 20, *notices}


def test_output_keeps_the_order_of_both_streams(launcher: Launcher) -> None:
    code = "import os\nfor i in range(20000): os.write(1 + i % 2, b'%d\\n' % i)"
    assert launcher.run("python3", "-c", code).log == b"".join(b"%d\n" % i for i in range(20000))


def test_fifty_megabytes_arrive_byte_for_byte(launcher: Launcher) -> None:
    shim = launcher.run("sh", "-c", f"head -c {50 << 20} /dev/urandom | tee copy")
    assert shim.record["log_bytes"] == str(50 << 20)
    assert shim.log == (shim.directory / "work/copy").read_bytes()


def test_output_goes_on_after_a_pause(launcher: Launcher) -> None:
    """Long enough for the monitor to have given its buffer back."""
    shim = launcher.run("sh", "-c", "head -c 300000 /dev/zero; sleep 1.2; echo end")
    assert shim.log == bytes(300000) + b"end\n"


def test_a_job_may_close_its_output(launcher: Launcher) -> None:
    shim = launcher.run("sh", "-c", "echo said; exec >&- 2>&-; sleep 0.2; exit 4")
    assert (shim.record["code"], shim.log) == ("4", b"said\n")


def test_a_pipe_held_by_a_stranger_does_not_delay_the_end(launcher: Launcher) -> None:
    """The output's write end, passed out of the job: its end never comes, and the record does."""
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect('/work/socket')\n"
        "socket.send_fds(s, [b'x'], [1])\n"
        "s.recv(1)"
    )
    directory = launcher.make_directory()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "work/socket"))
        os.chmod(directory / "work/socket", 0o777)
        listener.listen()
        listener.settimeout(TIMEOUT)
        shim = launcher.start(job_entries("python3", "-c", code), directory=directory)
        shim.started()
        peer, _ = listener.accept()
        with peer:
            _, (output,), _, _ = socket.recv_fds(peer, 1, 1)
            os.write(output, b"from outside")
            peer.send(b"x")
            shim.wait()
            os.close(output)
    assert (shim.record["code"], shim.log) == ("0", b"from outside")


def test_a_graceful_stop_reaches_the_command(launcher: Launcher) -> None:
    # sigwait, not a trap: a shell runs its trap only when a child that it forks after the signal has ended
    code = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('ready', flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "print('bye', flush=True)\n"
        "sys.exit(7)"
    )
    shim = launcher.start(job_entries("python3", "-c", code))
    shim.started()
    shim.await_log(b"ready")
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    assert (record["outcome"], record["code"], record["stop"]) == ("exited", "7", "term")
    assert shim.log.endswith(b"bye\n")


def test_a_stop_before_the_start_is_not_lost(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sleep", "1000"))
    while not (shim.directory / "monitor").exists():
        assert not shim.is_over(0.0001)
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    stopped, stage, number = (record.get(key) for key in ("stop", "stage", "signal"))
    # Before it listens, while it starts the command, or once that runs.
    assert shim.status == -signal.SIGTERM or (stopped, stage, number) in (
        ("kill", "stopped", None),
        ("kill", None, "9"),
        ("term", None, "15"),
    )


def test_the_grace_period_ends_in_a_kill(launcher: Launcher) -> None:
    code = "trap '' TERM; (setsid sh -c 'echo ready; sleep 1000'); sleep 1000"
    shim = launcher.start(job_entries("sh", "-c", code, grace_ms="150"))
    shim.started()
    shim.await_log(b"ready")
    before = time.monotonic()
    shim.signal(signal.SIGTERM)
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    assert time.monotonic() - before >= 0.15
    assert (record["outcome"], record["signal"], record["stop"]) == ("signaled", "9", "kill")
    assert processes_of(UID_BASE) == []


def test_a_kill_takes_every_process(launcher: Launcher) -> None:
    code = "for i in $(seq 50); do setsid sleep 1000 & done; echo ready; wait"
    shim = launcher.start(job_entries("sh", "-c", code))
    shim.started()
    shim.await_log(b"ready")
    shim.signal(signal.SIGUSR1)
    record = shim.wait()
    assert (record["outcome"], record["signal"], record["stop"]) == ("signaled", "9", "kill")
    assert processes_of(UID_BASE) == []


def test_what_the_command_leaves_behind_ends_with_it(launcher: Launcher) -> None:
    assert launcher.run("sh", "-c", "setsid sleep 1000 & exit 5").record["code"] == "5"
    assert processes_of(UID_BASE) == []


def test_orphans_are_reaped(launcher: Launcher) -> None:
    code = "for i in 1 2 3; do sh -c 'sleep 0.05 & sleep 0' ; done; sleep 0.3; grep -l '^State:.Z' /proc/*/status"
    assert launcher.run("sh", "-c", code).log == b""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE])
def test_other_signals_are_ignored(launcher: Launcher, number: signal.Signals) -> None:
    shim = launcher.start(job_entries("sh", "-c", "echo ready; sleep 1000"))
    shim.started()
    shim.await_log(b"ready")
    shim.signal(number)
    assert not shim.is_over(0.05)
    shim.signal(signal.SIGUSR1)
    assert shim.wait()["stop"] == "kill"


def test_the_command_starts_with_default_signals(launcher: Launcher) -> None:
    log = launcher.run("cat", "/proc/self/status").log.decode()
    assert re.findall(r"Sig(?:Blk|Ign|Cgt):\t(\w+)", log) == ["0" * 16] * 3


def test_the_job_dies_with_its_monitor(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000"))
    init = os.pidfd_open(shim.started())
    shim.await_log(b"ready")
    shim.signal(signal.SIGKILL)
    wait_readable(init)
    os.close(init)
    assert shim.wait() == {}
    assert processes_of(UID_BASE) == []
    assert shim.lock_is_free()


def test_a_monitor_killed_at_any_moment_leaves_nothing(launcher: Launcher) -> None:
    for delay in range(40):
        shim = launcher.start(job_entries("sleep", "1000"))
        shim.is_over(delay * 0.0001)
        shim.signal(signal.SIGKILL)
        shim.wait()
        deadline = time.monotonic() + 10
        while processes_of(UID_BASE) or not shim.lock_is_free():
            assert time.monotonic() < deadline


@pytest.fixture
def small_disk(launcher: Launcher) -> Iterator[Path]:
    """A job's directory on a disk of 1 MiB."""
    directory = launcher.directory / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "joblet-test", directory], check=True)
    yield launcher.make_directory(directory)
    subprocess.run(["umount", directory], check=True)


def test_a_full_disk_costs_output_but_neither_the_job_nor_its_record(launcher: Launcher, small_disk: Path) -> None:
    shim = launcher.start(job_entries("sh", "-c", "head -c 4000000 /dev/zero; exit 6"), directory=small_disk)
    shim.started()
    record = shim.wait()
    assert (record["outcome"], record["code"]) == ("exited", "6")
    assert int(record["log_bytes"]) + int(record["log_lost"]) == 4000000
    assert len(shim.log) == int(record["log_bytes"]) > 900_000


def test_a_gap_is_named_where_it_is(launcher: Launcher, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(700_000))
    code = "head -c 4000000 /dev/zero; mkdir full; while [ ! -d go ]; do sleep 0.01; done; echo; echo again"
    shim = launcher.start(job_entries("sh", "-c", code), directory=small_disk)
    shim.started()
    while not (small_disk / "work/full").exists():
        assert not shim.is_over(0.005)
    filler.unlink()
    (small_disk / "work/go").mkdir()
    record = shim.wait()
    found = re.search(rb"\njoblet: (\d+) bytes of output lost here: no space left on device\n", shim.log)
    assert found
    assert record["log_lost"] == found.group(1).decode()
    assert shim.log[found.end() :].endswith(b"\nagain\n")
    assert len(shim.log) - len(found.group()) + int(found.group(1)) == 4000000 + len(b"\nagain\n")
    offsets = [offset for _, offset in shim.marks]
    assert found.start() in offsets
    assert offsets == sorted(set(offsets))

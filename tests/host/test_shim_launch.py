"""The real shim, driven through its protocol: launches that fail, and the job's control groups (shim/PROTOCOL.md)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shim_harness import (
    CGROUPS,
    V2,
    Entries,
    Launcher,
    Shim,
    base_entries,
    encode,
    entering,
    job_entries,
    members,
    v1_controllers,
)

pytest_plugins = ["shim_harness"]
Group = Callable[[str], Path]

# One limit and one number, in the words of the host's control groups.
MEMORY = "memory.max" if V2 else "memory.limit_in_bytes"
MEMORY_PEAK = "memory.peak" if V2 else "memory.max_usage_in_bytes"
MEMORY_EVENTS = "memory.events" if V2 else "memory.oom_control"
KILLED_WHOLE = ("set", "memory.oom.group=1") if V2 else ("oom", "memory.oom_control")
FIFTH_OF_A_CPU = ("cpu.max=4000 20000",) if V2 else ("cpu.cfs_period_us=20000", "cpu.cfs_quota_us=4000")
KILL = [("kill", "cgroup.kill")] if V2 else []


def fail(launcher: Launcher, spec: Entries | bytes, stage: str, sentence: str) -> Shim:
    """The launch fails at that stage with that sentence, in report, record and log alike."""
    shim = launcher.start(spec)
    report = shim.report()
    record = shim.wait()
    assert report == f"failed {stage} {record['errno']} {record['reason']}\n"
    assert record["reason"].startswith(sentence), report
    assert (record["outcome"], record["stage"]) == ("failed", stage)
    assert "started_at" not in record
    assert shim.log.startswith(f"joblet: {record['reason']}".encode())
    assert shim.log.count(b"\n") == 1
    assert record["log_bytes"] == str(len(shim.log))
    assert not (shim.directory / "started").exists()
    assert shim.status == 1
    shim.close()
    return shim


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("no-such-command", "command not found: no-such-command"),
        ("/usr/bin/no-such", "command not found: /usr/bin/no-such"),
        ("", "command not found: "),
        ("a\nb\x7f", "command not found: a?b?"),
        ("x" * 300, "cannot execute " + "x" * 200 + ": file"),
        ("/etc/passwd", "cannot execute /etc/passwd: permission denied"),
        ("/usr", "cannot execute /usr: permission denied"),
        ("/etc/passwd/x", "cannot execute /etc/passwd/x: not a directory"),
    ],
)
def test_a_command_that_cannot_run_fails(launcher: Launcher, command: str, sentence: str) -> None:
    fail(launcher, job_entries(command), "exec", sentence)


def test_a_file_on_the_path_that_is_not_executable_is_not_called_missing(launcher: Launcher) -> None:
    spec = job_entries("tool", env={"PATH": "/work:/usr/bin"})
    directory = launcher.make_directory()
    (directory / "work/tool").touch()
    shim = launcher.start(spec, directory=directory)
    assert shim.report() == "failed exec 13 cannot execute tool: permission denied\n"


def test_a_system_path_that_is_missing_fails(launcher: Launcher) -> None:
    sentence = "failed to create isolated environment: no such file or directory"
    shim = fail(launcher, job_entries("true", extra=[("ro", "/no/such")]), "rootfs", sentence)
    assert shim.log.endswith(b" (open /no/such)\n")


@pytest.mark.parametrize("name", ["log", "index"])
def test_a_log_that_cannot_be_opened_fails(launcher: Launcher, name: str) -> None:
    directory = launcher.make_directory()
    (directory / name).mkdir()
    shim = launcher.start(job_entries("true"), directory=directory)
    assert shim.report() == "failed log 21 log setup failed: is a directory\n"
    assert shim.wait()["stage"] == "log"


def test_a_group_that_cannot_be_made_fails(launcher: Launcher) -> None:
    spec = job_entries("true", extra=[("cgroup", f"{CGROUPS}/joblet-test-none/group")])
    fail(launcher, spec, "cgroup", "cgroup setup failed: no such file or directory")


def test_a_limit_that_is_refused_fails_and_the_groups_go(launcher: Launcher, group: Group) -> None:
    earlier = [] if V2 else [entering(group("pids"))]
    extra = [*earlier, entering(group("memory")), ("set", f"{MEMORY}=nonsense")]
    shim = fail(launcher, job_entries("true", extra=extra), "cgroup", "cgroup setup failed: invalid argument")
    assert shim.log.endswith(f" (write {MEMORY})\n".encode())


def test_a_group_that_exists_is_not_taken_over(launcher: Launcher, group: Group) -> None:
    path = group("pids")
    path.mkdir()
    fail(launcher, job_entries("true", extra=[entering(path)]), "cgroup", "cgroup setup failed: file exists")
    path.rmdir()


def test_a_group_that_admits_no_process_fails(launcher: Launcher, group: Group) -> None:
    """Below a threaded group, which is nothing for processes until it is threaded too: cgroups(7)."""
    parent = group("unified")
    parent.mkdir()
    (parent / "cgroup.type").write_text("threaded")
    sentence = "failed to create isolated environment: "
    shim = fail(launcher, job_entries("true", extra=[("cgroup2", str(parent / "child"))]), "namespace", sentence)
    assert shim.log.endswith(b" (clone3)\n")
    assert not (parent / "child").exists()
    parent.rmdir()


# --- the spec -------------------------------------------------------------------------------------------------------

COMPLETE = job_entries("true")


def changed(key: str, *values: str) -> Entries:
    """The complete spec with that key's entries replaced by others in their place."""
    at = next(i for i, entry in enumerate(COMPLETE) if entry[0] == key)
    rest = [entry for entry in COMPLETE if entry[0] != key]
    return [*rest[:at], *((key, value) for value in values), *rest[at:]]


@pytest.mark.parametrize(
    "spec",
    [
        b"",
        b"\0",
        b"version=5",
        b"version=5\0",
        encode(COMPLETE)[:-1],
        encode(COMPLETE) + b"\0",
        encode(COMPLETE) + b"arg=x\0",
        encode(COMPLETE[1:]),
        encode(COMPLETE[:-1]),
        encode([*COMPLETE[:-1], ("surprise", "1"), COMPLETE[-1]]),
        encode(COMPLETE[:2] + COMPLETE[1:]),
        encode([entry for entry in COMPLETE if entry[0] != "arg"]),
        *(encode([entry for entry in COMPLETE if entry[0] != key]) for key, _ in base_entries() if key != "ro"),
        *(encode(changed("version", value)) for value in ("", "1", "02", "2 ")),
        *(encode(changed("id", value)) for value in ("", "8", "x", "7/")),
        *(encode(changed("uid_base", value)) for value in ("", "0", "-1", "+1", " 1", "0x1", "4294967295", "1" * 40)),
        encode([*changed("uid_base", "4294967000")]),
        *(encode(changed("tmp_bytes", value)) for value in ("0", "9223372036854775808", "18446744073709551617")),
        *(encode(changed("hostname", value)) for value in ("", "h" * 65)),
        *(encode(changed("work", value)) for value in ("", "w", "/", "/w/", "//w", "/w/..", "/./w", "/proc/w", "/tmp")),
        *(encode(changed("ro", value)) for value in ("/", "/dev", "/proc/self", "/tmp", "/a/../b", "/" + "x" * 256)),
        encode(changed("ro", "/a" * 2048)),
        *(encode(changed("env", value)) for value in ("", "A", "=b")),
        *(
            encode([*COMPLETE[:-1], entry, COMPLETE[-1]])
            for entry in (
                *(("cwd", value) for value in ("", "work", "./a")),
                *(("outputs", value) for value in ("", ".", "..", "a/b", "/a", "x" * 256)),
                *(("input", value) for value in ("x", " ")),
                *(("terminal", value) for value in ("", " ", "24", "24 ", " 80", "0 80", "24 0", "24 65536", "24 80 ")),
                *(("shared", value) for value in ("", "/", "a", "/a/../b", "/a/", "/a" * 2048)),
            )
        ),
        *(
            encode([*COMPLETE[:-1], (key, value), (key, value), COMPLETE[-1]])
            for key, value in (("cwd", "/work"), ("outputs", "a"), ("shared", "/a"))
        ),
        encode([*COMPLETE[:-1], ("set", "a=b"), COMPLETE[-1]]),
        *(
            encode([*COMPLETE[:-1], ("cgroup", "/sys/x"), entry, COMPLETE[-1]])
            for entry in (("set", "a"), ("set", "a/b=c"), ("set", "=x"), ("stat", "a=b/c"), ("stat", "a\nb=c"))
        ),
        encode([*COMPLETE[:-1], *[("cgroup", "/sys/x")] * 17, COMPLETE[-1]]),
    ],
)
def test_a_spec_that_is_not_exactly_right_is_refused(launcher: Launcher, spec: bytes) -> None:
    fail(launcher, spec, "spec", "invalid job spec: ")


def test_a_spec_that_is_too_long_is_refused(launcher: Launcher) -> None:
    fail(launcher, encode(COMPLETE) + b"x" * (16 << 20), "spec", "invalid job spec: too long")


KEYS = [*dict(COMPLETE), "cwd", "outputs", "shared", "mask", "cgroup", "set", "stat", "kill", "nonsense", ""]
VALUES = st.one_of(
    st.sampled_from(["", "1", "0", "/", "/a", "/proc", "a=b", "a=b:c", "=", ":", "7", "/sys/joblet-test"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
)
LINES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=20).map(encode)
# Never complete: without its last entry a spec cannot be right, whatever else it is.
ALMOST = st.lists(st.sampled_from(COMPLETE[:-1]), max_size=30).map(encode)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), LINES, ALMOST))
def test_no_bytes_confuse_the_parser(launcher: Launcher, spec: bytes) -> None:
    fail(launcher, spec, "spec", "invalid job spec: ")


def test_descriptors_that_are_missing_are_refused(launcher: Launcher) -> None:
    result = subprocess.run([launcher.binary, "7"], stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (2, b"joblet-shim is started by joblet: see PROTOCOL.md\n")


# --- control groups -------------------------------------------------------------------------------------------------


def test_a_job_is_in_its_groups_and_they_are_removed(launcher: Launcher, group: Group) -> None:
    paths = [group(name) for name in v1_controllers()]
    if not paths:
        pytest.skip("this host has no v1 controllers")
    shim = launcher.start(job_entries("sleep", "1000", extra=[("cgroup", str(path)) for path in paths]))
    init = shim.started()
    for path in paths:
        assert init in members(path)
        assert len(members(path)) == 2
        assert shim.pid not in members(path)
    shim.signal(signal.SIGUSR1)
    shim.wait()
    assert not any(path.exists() for path in paths)


def test_the_second_hierarchy_takes_the_init_at_its_birth(launcher: Launcher, group: Group) -> None:
    path = group("unified")
    extra = [("cgroup2", str(path)), ("kill", "cgroup.kill"), ("stat", "populated=cgroup.events:populated")]
    shim = launcher.start(job_entries("sleep", "1000", extra=extra))
    assert shim.started() in members(path)
    shim.signal(signal.SIGUSR1)
    assert shim.wait()["stat.populated"] == "0"


def test_a_process_that_somebody_else_put_there_is_killed(launcher: Launcher, group: Group) -> None:
    path = group("freezer")
    shim = launcher.start(job_entries("sleep", "1000", extra=[entering(path), *KILL]))
    shim.started()
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        (path / "cgroup.procs").write_text(str(stranger.pid))
        shim.signal(signal.SIGUSR1)
        shim.wait()
        assert stranger.wait(10) == -signal.SIGKILL
    assert not path.exists()


def test_out_of_memory_is_counted_before_the_group_goes(launcher: Launcher, group: Group) -> None:
    extra = [
        entering(group("memory")),
        ("set", f"{MEMORY}={32 << 20}"),
        ("stat", f"oom={MEMORY_EVENTS}:oom_kill"),
        ("stat", f"peak={MEMORY_PEAK}"),
        ("stat", "absent=memory.absent"),
        ("stat", f"absent_key={MEMORY_EVENTS}:absent"),
    ]
    record = launcher.run("python3", "-c", "bytearray(200 << 20)", extra=extra).record
    assert (record["outcome"], record["signal"], record["stat.oom"]) == ("signaled", "9", "1")
    assert 16 << 20 < int(record["stat.peak"]) <= 32 << 20
    assert record["stat.absent_key"] == "0"
    assert not {"stat.absent", "stop"} & record.keys()


def test_a_job_that_runs_out_of_memory_ends_whole(launcher: Launcher, group: Group) -> None:
    """v1 kills the one process that is the biggest; the rest of the job would go on without it, and here succeed."""
    extra = [
        entering(group("memory")),
        ("set", f"{MEMORY}={32 << 20}"),
        KILLED_WHOLE,
        ("stat", f"oom={MEMORY_EVENTS}:oom_kill"),
    ]
    code = "(python3 -c 'bytearray(200 << 20)'); sleep 1000"
    record = launcher.run("sh", "-c", code, extra=extra).record
    assert (record["outcome"], record["signal"]) == ("signaled", "9")
    # v2 counts all that it killed together
    assert int(record["stat.oom"]) >= 1
    assert "stop" not in record


def test_a_job_at_its_limit_that_is_not_short_of_memory_goes_on(launcher: Launcher, group: Group) -> None:
    """Page cache is given back without anybody being killed."""
    extra = [
        entering(group("memory")),
        ("set", f"{MEMORY}={16 << 20}"),
        KILLED_WHOLE,
    ]
    code = "dd if=/dev/zero of=f bs=1M count=64 2>/dev/null; cat f >/dev/null; echo done"
    shim = launcher.run("sh", "-c", code, extra=extra)
    assert (shim.record["code"], shim.log) == ("0", b"done\n")


def test_numbers_of_several_devices_are_added_up(launcher: Launcher, group: Group) -> None:
    """A line each: `MAJOR:MINOR Read N` and more on v1, `MAJOR:MINOR rbytes=N wbytes=N` and more on v2."""
    of = "io.stat:{}bytes" if V2 else "blkio.throttle.io_service_bytes_recursive:{}"
    total = [] if V2 else [("stat", f"all={of.format('Total')}")]
    extra = [
        entering(group("io" if V2 else "blkio")),
        ("stat", f"written={of.format('w' if V2 else 'Write')}"),
        *total,
    ]
    shim = launcher.run(
        "sh", "-c", "dd if=/dev/zero of=f bs=64k count=4 oflag=direct 2>/dev/null || echo none", extra=extra
    )
    if shim.log:
        pytest.skip("no direct I/O on this file system")
    # the whole device's lines come before the sum that the file ends with
    assert int(shim.record["stat.written"]) >= 4 * 65536
    assert V2 or int(shim.record["stat.all"]) >= int(shim.record["stat.written"])


def test_the_wall_time_is_counted(launcher: Launcher) -> None:
    record = launcher.run("sleep", "0.2").record
    lasted = (int(record["ended_at"]) - int(record["started_at"])) // 1000
    assert int(record["stat.wall_usec"]) >= 200_000
    assert abs(int(record["stat.wall_usec"]) - lasted) < 10_000_000


def test_processes_are_limited(launcher: Launcher, group: Group) -> None:
    extra = [entering(group("pids")), ("set", "pids.max=5"), ("stat", "refused=pids.events:max")]
    shim = launcher.run("sh", "-c", "for i in 1 2 3 4 5 6 7; do sleep 1000 & done", extra=extra)
    assert b"fork" in shim.log
    assert int(shim.record["stat.refused"]) >= 1


def test_a_limit_of_one_process_leaves_no_room_for_the_command(launcher: Launcher, group: Group) -> None:
    extra = [entering(group("pids")), ("set", "pids.max=1")]
    fail(launcher, job_entries("true", extra=extra), "exec", "cannot execute true: resource temporarily unavailable")


def test_cpu_time_is_limited(launcher: Launcher, group: Group) -> None:
    extra = [
        entering(group("cpu")),
        *(("set", setting) for setting in FIFTH_OF_A_CPU),
        ("stat", "throttled=cpu.stat:nr_throttled"),
    ]
    code = (
        "import time; start = time.monotonic(); used = time.process_time()\n"
        "while time.process_time() - used < 0.2: pass\n"
        "print(time.monotonic() - start)"
    )
    shim = launcher.run("python3", "-c", code, extra=extra)
    assert float(shim.log) > 0.6
    assert int(shim.record["stat.throttled"]) > 10

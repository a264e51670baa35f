"""What the doctor concludes from what it sees. That it sees what is there is tested on a real host."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import open_descriptors
from hypothesis import given
from hypothesis import strategies as st

from joblet.doctor import context, host, installation, isolation, report, service, storage
from joblet.doctor.child import Outcome, attempt
from joblet.doctor.context import parse_capabilities, parse_release
from joblet.doctor.report import Report, Row, Section, Verdict
from joblet.doctor.service import Certificate

OK, NOTE, GAP, FAILS = Verdict.OK, Verdict.NOTE, Verdict.GAP, Verdict.FAILS
WORKED = Outcome()
EVERY_CAPABILITY = (1 << 41) - 1
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def refused(number: int) -> Outcome:
    return Outcome(errno=number)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("6.1.0-13-amd64", (6, 1)),
        ("6.18.44-fc-v669", (6, 18)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
        ("6.1", (6, 1)),
        ("6.1-rc3", (6, 1)),
        ("", (0, 0)),
        ("unknown", (0, 0)),
    ],
)
def test_a_kernel_release_is_two_numbers(text: str, numbers: tuple[int, int]) -> None:
    assert parse_release(text) == numbers


@given(st.text())
def test_no_kernel_release_is_too_odd(text: str) -> None:
    parse_release(text)


def test_capabilities_are_the_effective_ones() -> None:
    assert parse_capabilities("Name:\tx\nCapPrm:\tff\nCapEff:\t0000000000000003\nCapBnd:\tff\n") == 3
    assert parse_capabilities("Name:\tx\n") == 0


@pytest.mark.parametrize(
    ("machine", "version", "verdict"),
    [
        ("x86_64", (6, 1), OK),
        ("aarch64", (5, 12), OK),
        ("x86_64", (5, 11), FAILS),
        ("x86_64", (0, 0), FAILS),
        ("riscv64", (6, 1), FAILS),
    ],
)
def test_kernel(machine: str, version: tuple[int, int], verdict: Verdict) -> None:
    assert host.judge_kernel(machine, "x", version).verdict is verdict


def test_missing_system_calls_are_named() -> None:
    assert host.judge_calls([]).verdict is OK
    row = host.judge_calls(["openat2", "mount_setattr"])
    assert (row.verdict, row.host) == (FAILS, "missing: openat2, mount_setattr")


HOST_IDS = "         0          0 4294967295"


@pytest.mark.parametrize(
    ("root", "lacking", "uid_map", "verdict", "said"),
    [
        (True, [], HOST_IDS, OK, "every capability"),
        (True, [24], HOST_IDS, OK, "without CAP_SYS_RESOURCE"),
        (True, [27], HOST_IDS, OK, "without CAP_MKNOD"),
        (True, [21], HOST_IDS, FAILS, "without CAP_SYS_ADMIN"),
        (True, [5, 7], HOST_IDS, FAILS, "without CAP_KILL, CAP_SETUID"),
        (True, [], "0 100000 65536", GAP, "in a user namespace"),
        (False, list(range(41)), HOST_IDS, NOTE, "unprivileged"),
    ],
)
def test_privileges(root: bool, lacking: list[int], uid_map: str, verdict: Verdict, said: str) -> None:
    capabilities = EVERY_CAPABILITY & ~sum(1 << bit for bit in lacking)
    row = host.judge_caller(root, 0 if root else 1000, capabilities, uid_map)
    assert row.verdict is verdict
    assert said in row.host


@pytest.mark.parametrize(
    ("compared", "root_mounted", "verdict", "said"),
    [
        (Outcome("same"), True, OK, "not in a chroot"),
        (Outcome("other"), True, NOTE, "a chroot"),
        (refused(errno.EPERM), True, FAILS, "setns: operation not permitted"),
        (None, True, OK, "not in a chroot"),
        (None, False, NOTE, "a chroot"),
    ],
)
def test_root_directory(compared: Outcome | None, root_mounted: bool, verdict: Verdict, said: str) -> None:
    row = host.judge_root_directory(compared, root_mounted)
    assert row.verdict is verdict
    assert said in row.host


def test_a_chroot_has_nothing_mounted_on_its_root() -> None:
    assert host.has_root_mount("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    assert not host.has_root_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")


@pytest.mark.parametrize(
    ("most", "jobs", "each", "verdict"),
    [(4194304, 100, 1024, OK), (32768, 100, 1024, NOTE), (32768, 10, 32768, GAP), (0, 100, 1024, NOTE)],
)
def test_process_numbers(most: int, jobs: int, each: int, verdict: Verdict) -> None:
    assert host.judge_processes(most, jobs, each).verdict is verdict


@pytest.mark.parametrize(
    ("hard", "jobs", "verdict"), [(1 << 20, 100, OK), (-1, 100, OK), (20000, 100, NOTE), (1024, 1000, GAP)]
)
def test_open_files(hard: int, jobs: int, verdict: Verdict) -> None:
    assert host.judge_open_files(hard, jobs, 65536).verdict is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"), [(Outcome("yes"), OK), (Outcome("no"), GAP), (refused(errno.ENOSYS), NOTE)]
)
def test_clock(answer: Outcome, verdict: Verdict) -> None:
    assert host.judge_clock(answer).verdict is verdict


def test_boot_id() -> None:
    assert host.judge_boot_id("7c9d5d13-1810-4fcd-af11-7f1497e04984").verdict is OK
    assert host.judge_boot_id("").verdict is FAILS


NAMESPACES = ("user", "pid", "mnt", "uts", "ipc", "cgroup", "net")


def test_namespaces_that_can_be_made_are_one_row() -> None:
    (row,) = isolation.judge_namespaces(True, dict.fromkeys(NAMESPACES, WORKED))
    assert (row.verdict, row.host) == (OK, "user, pid, mnt, uts, ipc, cgroup, net: made")


def test_each_namespace_that_cannot_be_made_is_a_row_of_its_own() -> None:
    made = dict.fromkeys(NAMESPACES, WORKED) | {"user": refused(errno.ENOSPC), "net": refused(errno.EINVAL)}
    rows = isolation.judge_namespaces(True, made)
    assert [(row.check, row.verdict) for row in rows] == [
        ("namespaces", OK),
        ("user namespace", FAILS),
        ("net namespace", NOTE),
    ]
    assert rows[1].host == "no space left on device"


def test_a_user_who_may_make_no_namespace_learns_nothing_of_them() -> None:
    (row,) = isolation.judge_namespaces(False, dict.fromkeys(NAMESPACES, refused(errno.EPERM)))
    assert (row.verdict, row.host) == (NOTE, "only root can find out")


@pytest.mark.parametrize(
    ("limits", "verdict"), [({"user": 96365, "pid": 500}, OK), ({"user": 50}, GAP), ({"user": 0}, FAILS), ({}, NOTE)]
)
def test_namespace_limits(limits: dict[str, int], verdict: Verdict) -> None:
    assert isolation.judge_namespace_limits(limits, 100).verdict is verdict


@pytest.mark.parametrize(
    ("made", "release", "verdict"),
    [(WORKED, (5, 8), OK), (refused(errno.EINVAL), (5, 7), FAILS), (None, (6, 1), OK), (None, (5, 7), FAILS)],
)
def test_proc(made: Outcome | None, release: tuple[int, int], verdict: Verdict) -> None:
    assert isolation.judge_proc(made, release).verdict is verdict


@pytest.mark.parametrize(
    ("filtered", "verdict", "said"),
    [
        (Outcome("filtered"), OK, "filters work"),
        (Outcome(""), FAILS, "did not filter"),
        (refused(errno.EINVAL), FAILS, "invalid argument"),
        (Outcome(signal=signal.SIGSYS), FAILS, "ended by SIGSYS"),
    ],
)
def test_seccomp(filtered: Outcome, verdict: Verdict, said: str) -> None:
    row = isolation.judge_seccomp(filtered)
    assert row.verdict is verdict
    assert said in row.host


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        (Outcome("7"), OK, "ABI 7"),
        (Outcome("6"), OK, "ABI 6"),
        (Outcome("5"), GAP, "ABI 5"),
        (Outcome("1"), GAP, "ABI 1"),
        (refused(errno.ENOSYS), GAP, "not in this kernel"),
        (refused(errno.EOPNOTSUPP), GAP, "switched off at boot"),
        (refused(errno.EPERM), GAP, "operation not permitted"),
    ],
)
def test_landlock(answer: Outcome, verdict: Verdict, said: str) -> None:
    row = isolation.judge_landlock(answer)
    assert row.verdict is verdict
    assert said in row.host


@pytest.mark.parametrize(
    ("made", "state", "verdict"),
    [(WORKED, True, OK), (refused(errno.EINVAL), True, GAP), (refused(errno.EINVAL), False, FAILS)],
)
def test_id_mapped_mounts(made: Outcome, state: bool, verdict: Verdict) -> None:
    assert isolation.judge_id_mapped_mounts(Path("/srv"), made, "use", state=state).verdict is verdict


FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nodd line\n+::::::\n",
    "group": "root:x:0:\nstaff:x:50:ann\n",
    "subuid": "ann:100000:65536\nann:x:y\n",
    "subgid": "# none\n",
}


def test_ids_that_are_taken() -> None:
    assert isolation.taken_ids(FILES) == [
        ("root in /etc/passwd", 0, 1),
        ("ann in /etc/passwd", 1000, 1),
        ("root in /etc/group", 0, 1),
        ("staff in /etc/group", 50, 1),
        ("ann in /etc/subuid", 100000, 65536),
    ]


@pytest.mark.parametrize(
    ("first", "count", "uid_map", "verdict", "said"),
    [
        (0x70000000, 1 << 28, HOST_IDS, OK, "free"),
        (65536, 34464, HOST_IDS, OK, "free"),
        (65536, 34465, HOST_IDS, FAILS, "ann in /etc/subuid"),
        (165535, 10, HOST_IDS, FAILS, "ann in /etc/subuid"),
        (165536, 10, HOST_IDS, OK, "free"),
        (0, 2000, HOST_IDS, FAILS, "root in /etc/passwd and 3 more"),
        (0x70000000, 65536, "0 100000 65536\n", FAILS, "not in this user namespace"),
        (200, 300, "0 0 100\n100 5000 1000\n", OK, "free"),
    ],
)
def test_id_pool(first: int, count: int, uid_map: str, verdict: Verdict, said: str) -> None:
    row = isolation.judge_id_pool(first, count, isolation.taken_ids(FILES), uid_map)
    assert row.verdict is verdict
    assert said in row.host


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:40 / /var rw - tmpfs tmpfs rw
41 27 254:32 / /var rw - btrfs /dev/vdc rw
42 41 254:16 / /var/lib\\040x rw shared:1 master:2 - xfs /dev/vdb rw
not a mount
"""


@pytest.mark.parametrize(
    ("path", "kind"), [("/srv", "ext4"), ("/var/lib", "btrfs"), ("/var/lib x/jobs", "xfs"), ("/variable", "ext4")]
)
def test_the_mount_that_holds_a_path(path: str, kind: str) -> None:
    found = storage.find_mount(MOUNTS, path)
    assert found is not None
    assert found.kind == kind


def test_no_mount_holds_a_path_of_nowhere() -> None:
    assert storage.find_mount("", "/srv") is None


EXT4 = storage.Mount("/", "ext4", "/dev/vda")


@pytest.mark.parametrize(
    ("mount", "free", "inodes", "verdict"),
    [
        (EXT4, 80 << 30, 1 << 20, OK),
        (EXT4, 80 << 30, None, OK),
        (EXT4, 500 << 20, 1 << 20, GAP),
        (EXT4, 80 << 30, 100, GAP),
        (storage.Mount("/tmp", "tmpfs", "tmpfs"), 80 << 30, 1 << 20, GAP),
        (None, 80 << 30, 1 << 20, OK),
    ],
)
def test_room(mount: storage.Mount | None, free: int, inodes: int | None, verdict: Verdict) -> None:
    assert storage.judge_room(mount, free, inodes).verdict is verdict


@pytest.mark.parametrize(
    ("wanted", "owner", "mode", "verdict"),
    [
        ("/var/lib/joblet", 0, 0o40700, OK),
        ("/var/lib/joblet", 0, 0o40755, GAP),
        ("/var/lib/joblet", 1000, 0o40700, GAP),
        ("/var/lib/joblet/not-yet", 0, 0o40755, OK),
    ],
)
def test_state_directory(wanted: str, owner: int, mode: int, verdict: Verdict) -> None:
    row = storage.judge_state_directory(Path(wanted), Path("/var/lib/joblet"), owner, mode)
    assert row.verdict is verdict


def test_disks() -> None:
    assert storage.judge_disks(("254:0 vda", "254:16 vdb"), "").verdict is OK
    row = storage.judge_disks((), "cgroup setup failed: no disk behind /x to limit I/O on")
    assert (row.verdict, row.use) == (GAP, "--max-iobps is refused")


@pytest.mark.parametrize(
    ("program", "ext4", "control", "loop", "said", "advice"),
    [
        (None, True, True, WORKED, "no mkfs.ext4", "Install e2fsprogs."),
        ("/sbin/mkfs.ext4", True, False, WORKED, "no loop devices", "Run modprobe loop"),
        ("/sbin/mkfs.ext4", True, True, refused(errno.ENXIO), "no loop devices", "Run modprobe loop"),
        (None, False, True, WORKED, "no mkfs.ext4, no ext4", "Install e2fsprogs and use a kernel with ext4."),
    ],
)
def test_what_job_disks_lack(
    program: str | None, ext4: bool, control: bool, loop: Outcome, said: str, advice: str
) -> None:
    row = storage.judge_job_disks(program, ext4, control, loop)
    assert (row.verdict, row.host) == (GAP, said)
    assert row.advice.startswith(advice)


def test_job_disks_with_all_they_need() -> None:
    assert storage.judge_job_disks("/sbin/mkfs.ext4", True, True, WORKED).verdict is OK


def test_the_trial_jobs_ids_are_nobodys() -> None:
    assert installation.free_range(1 << 20, 4, {0, 1000}) == (1 << 20) + 3 * 65536
    assert installation.free_range(1 << 20, 4, {(1 << 20) + 4 * 65536 - 1}) == (1 << 20) + 2 * 65536
    assert installation.free_range(1 << 20, 1, {1 << 20}) == 1 << 20


@pytest.mark.parametrize(("status", "verdict"), [(2, OK), (None, FAILS), (0, FAILS), (-11, FAILS)])
def test_shim(status: int | None, verdict: Verdict) -> None:
    assert installation.judge_shim(status, "/x/joblet-shim").verdict is verdict


def test_python() -> None:
    assert installation.judge_python((3, 11), "OpenSSL 3.0.19 27 Jan 2026").verdict is OK
    assert installation.judge_python((3, 10), "OpenSSL 3.0.19 27 Jan 2026").verdict is FAILS


def certificate(*, start: int = -1, days: int, mine: bool = True) -> Certificate:
    return Certificate(NOW + timedelta(days=start), NOW + timedelta(days=days), mine)


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (certificate(days=100), OK, "until 2026-09-09"),
        (certificate(days=29), GAP, "until 2026-06-30"),
        (certificate(start=-9, days=-1), FAILS, "expired on 2026-05-31"),
        (certificate(start=1, days=100), FAILS, "valid only from 2026-06-02"),
        (certificate(days=100, mine=False), GAP, "of another authority"),
    ],
)
def test_certificate(found: Certificate, verdict: Verdict, said: str) -> None:
    row = service.judge_certificate("certificate", "server-cert.pem", found, NOW)
    assert row.verdict is verdict
    assert said in row.host


@pytest.mark.parametrize(
    ("owner", "mode", "ca_key", "verdict"),
    [
        (0, 0o100600, False, OK),
        (0, 0o100600, True, NOTE),
        (0, 0o100640, False, FAILS),
        (1000, 0o100600, False, FAILS),
    ],
)
def test_key(owner: int, mode: int, ca_key: bool, verdict: Verdict) -> None:
    assert service.judge_key(Path("/c/server-key.pem"), owner, mode, ca_key).verdict is verdict


DEFAULT = Path("/opt/joblet/joblet-config.yml")


@pytest.mark.parametrize(
    ("path", "mode", "trouble", "holds_key", "verdict"),
    [
        (DEFAULT, 0o100644, "", False, OK),
        (DEFAULT, None, "", False, GAP),
        (Path("mine.yml"), None, "", False, FAILS),
        (DEFAULT, 0o100644, "x.yml: joblet.bogus: unknown key", False, FAILS),
        (DEFAULT, 0o100600, "/opt/joblet/joblet-config.yml: Permission denied", False, NOTE),
        (DEFAULT, 0o100600, "", True, OK),
        (DEFAULT, 0o100644, "", True, FAILS),
    ],
)
def test_configuration(path: Path, mode: int | None, trouble: str, holds_key: bool, verdict: Verdict) -> None:
    assert service.judge_configuration(path, mode, trouble, holds_key=holds_key).verdict is verdict


def test_a_list_of_revoked_certificates_counts_though_it_is_old() -> None:
    now = datetime(2026, 1, 15, tzinfo=UTC)
    fresh = service.judge_revocations(3, now + timedelta(days=1), now)
    assert (fresh.verdict, fresh.host) == (OK, "3 certificates revoked, until 2026-01-16")
    assert service.judge_revocations(3, None, now).verdict is OK
    assert service.judge_revocations(3, now - timedelta(days=1), now).verdict is GAP


def test_absent_certificates_fail_what_is_configured() -> None:
    assert service.judge_absence("key", "none", Path("/c"), configured=True).verdict is FAILS
    assert service.judge_absence("key", "none", Path("/c"), configured=False).verdict is GAP


@pytest.mark.parametrize(("protocol", "verdict"), [("h2", OK), ("", GAP), (None, NOTE)])
def test_server(protocol: str | None, verdict: Verdict) -> None:
    assert service.judge_server("127.0.0.1:50051", protocol, "Connection refused").verdict is verdict


def made_report(*verdicts: Verdict, root: bool = True) -> Report:
    rows = tuple(Row(f"c{n}", "has", "use", verdict, "Do it.") for n, verdict in enumerate(verdicts))
    return Report((Section("Host", rows),), root)


@pytest.mark.parametrize(
    ("made", "status", "summary"),
    [
        (made_report(OK), 0, "Jobs can run here (0 gaps, 0 notes)."),
        (made_report(OK, GAP, NOTE, NOTE), 0, "Jobs can run here (1 gap, 2 notes)."),
        (made_report(FAILS, GAP), 1, "Jobs cannot run here: 1 of the things they need fails (1 gap, 0 notes)."),
        (made_report(FAILS, FAILS), 1, "Jobs cannot run here: 2 of the things they need fail (0 gaps, 0 notes)."),
        (
            made_report(NOTE, root=False),
            0,
            "Nothing seen that keeps jobs from running here; only root sees everything (0 gaps, 1 note).",
        ),
    ],
)
def test_only_what_is_needed_decides(made: Report, status: int, summary: str) -> None:
    assert (made.status, made.summary) == (status, summary)


def test_the_report_for_machines() -> None:
    text = json.loads(json.dumps(made_report(OK, FAILS).as_dict()))
    assert text["jobsCanRun"] is False
    assert text["checks"][1] == {
        "section": "Host",
        "check": "c1",
        "host": "has",
        "use": "use",
        "verdict": "fails",
        "advice": "Do it.",
    }


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (82_400_000_000, "82 GB"),
        (5 * 10**12, "5.0 TB"),
        (10**16, "10000 TB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert report.size(number) == text


def raising(error: BaseException) -> Callable[[], str]:
    def action() -> str:
        raise error

    return action


@pytest.mark.parametrize(
    ("action", "outcome", "why"),
    [
        (lambda: "seen", Outcome("seen"), ""),
        (lambda: None, Outcome(), ""),
        (raising(OSError(errno.EPERM, "x")), Outcome(errno=errno.EPERM), "operation not permitted"),
        (raising(OSError("no number")), Outcome(trouble="no number"), "no number"),
        (raising(ValueError("odd")), Outcome(trouble="ValueError: odd"), "ValueError: odd"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), Outcome(signal=signal.SIGKILL), "ended by SIGKILL"),
        (lambda: os._exit(0), Outcome(trouble="it ended without an answer"), "it ended without an answer"),
    ],
)
def test_an_attempt_in_a_child(action: Callable[[], str | None], outcome: Outcome, why: str) -> None:
    found = attempt(action)
    assert found == outcome
    assert found.ok == (why == "")
    assert found.why == why


def test_an_attempt_leaves_no_child_and_no_descriptor() -> None:
    def children() -> str:
        return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()

    before, had = open_descriptors(), children()
    attempt(lambda: "x")
    assert open_descriptors() - before == set()  # earlier tests' may close meanwhile
    assert children() == had


def test_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert context.existing(tmp_path / "a/b/c") == tmp_path
    assert context.existing(tmp_path) == tmp_path

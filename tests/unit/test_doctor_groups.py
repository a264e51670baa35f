"""What the doctor makes of a host's control groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.doctor import groups
from joblet.doctor.hierarchies import Hierarchies, own_group, parse_disabled, parse_mounts
from joblet.doctor.report import Verdict

OK, NOTE, GAP, FAILS = Verdict.OK, Verdict.NOTE, Verdict.GAP, Verdict.FAILS

V2 = """\
24 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
BESIDE = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
EVERYTHING = "cpuset cpu io memory hugetlb pids rdma\n"


def found(mountinfo: str, offered: str = "") -> Hierarchies:
    return parse_mounts(mountinfo, lambda _: offered)


@pytest.mark.parametrize(
    ("mountinfo", "offered", "mode", "used"),
    [
        (V2, EVERYTHING, "v2", "v2"),
        (V1, "", "v1", "v1"),
        (V1 + BESIDE, "", "hybrid", "v1"),
        (V1 + BESIDE, "memory", "hybrid", "v2"),
        ("", "", "none", "none"),
        ("27 1 254:0 / / rw - ext4 /dev/vda rw\n", "", "none", "none"),
    ],
)
def test_the_mode_and_what_joblet_takes(mountinfo: str, offered: str, mode: str, used: str) -> None:
    hierarchies = found(mountinfo, offered)
    assert (hierarchies.mode, hierarchies.used) == (mode, used)


@given(st.text(alphabet="cgroup2 -,/rw\n=name", max_size=200))
def test_no_mount_table_is_too_odd(text: str) -> None:
    found(text)


def test_controllers_are_found_by_their_v2_names() -> None:
    v1, v2 = found(V1), found(V2, EVERYTHING)
    assert v1.mount("io") == Path("/sys/fs/cgroup/blkio")
    assert v1.mount("cpu") == v1.mount("cpuacct") == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert v1.mount("freezer") is None
    assert set(v1.v1) == {"cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"}
    assert v2.mount("io") == Path("/sys/fs/cgroup")
    assert v2.mount("freezer") is None


@pytest.mark.parametrize(
    ("mountinfo", "offered", "name", "disabled", "verdict", "said"),
    [
        (V2, EVERYTHING, "memory", set(), OK, "v2, /sys/fs/cgroup"),
        (V2, "cpu pids", "memory", set(), FAILS, "missing"),
        (V2, "cpu pids", "memory", {"memory"}, FAILS, "switched off at boot"),
        (V2, "cpu memory pids", "io", set(), GAP, "missing"),
        (V1, "", "io", set(), OK, "v1, /sys/fs/cgroup/blkio"),
        (V1.replace(",blkio", ",x"), "", "io", {"blkio"}, GAP, "switched off at boot"),
        (V1.replace("memory rw", "memory ro"), "", "memory", set(), FAILS, "/sys/fs/cgroup/memory, read-only"),
        (V1.replace("cpuset rw", "cpuset ro"), "", "cpuset", set(), GAP, "/sys/fs/cgroup/cpuset, read-only"),
        (V1 + BESIDE, "memory", "cpu", set(), FAILS, "not on v2"),
        (V1, "", "freezer", set(), GAP, "missing"),
    ],
)
def test_controller(mountinfo: str, offered: str, name: str, disabled: set[str], verdict: Verdict, said: str) -> None:
    row = groups.judge_controller(name, found(mountinfo, offered), disabled)
    assert (row.verdict, row.host) == (verdict, said)


@pytest.mark.parametrize(
    ("mountinfo", "offered", "verdict"),
    [(V2, EVERYTHING, OK), (V1, "", GAP), (V1 + BESIDE, "", GAP), ("", "", FAILS)],
)
def test_mode(mountinfo: str, offered: str, verdict: Verdict) -> None:
    assert groups.judge_mode(found(mountinfo, offered)).verdict is verdict


def test_controllers_switched_off_at_boot() -> None:
    text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t9\t1\nmemory\t0\t9\t0\n"
    assert parse_disabled(text) == {"memory"}
    assert parse_disabled("") == set()


def test_ones_own_group() -> None:
    text = "12:cpu,cpuacct:/user.slice\n1:name=systemd:/x\n0::/user.slice/a:b.scope\n"
    assert own_group(text, "cpuacct") == "/user.slice"
    assert own_group(text, None) == "/user.slice/a:b.scope"
    assert own_group(text, "memory") == "/"


@pytest.mark.parametrize(
    ("accounted", "kernel_swaps", "tried", "verdict"),
    [(True, True, True, OK), (False, False, True, OK), (False, True, True, FAILS), (False, True, False, NOTE)],
)
def test_swap_on_v2(accounted: bool, kernel_swaps: bool, tried: bool, verdict: Verdict) -> None:
    assert groups.judge_swap_v2(accounted, kernel_swaps, tried).verdict is verdict


def test_what_newer_kernels_have() -> None:
    for judge, verdict in ((groups.judge_kill, NOTE), (groups.judge_memory_peak, GAP), (groups.judge_pids_peak, GAP)):
        assert judge(True, True).verdict is OK
        assert judge(False, True).verdict is verdict
        assert judge(False, False).host == "only root can find out"

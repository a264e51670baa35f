from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.errors import HostUnable
from joblet.executor.base import Usage
from joblet.executor.local import cgroup_v1, cgroup_v2, host
from joblet.executor.local.cgroup import PERIOD_US, quota_us
from joblet.executor.local.cgroup_v1 import CgroupV1
from joblet.executor.local.cgroup_v2 import CgroupV2
from joblet.executor.local.spec import Group, View
from joblet.job import Limits, Receipt

LIMITS = Limits(max_cpu=50, max_memory=64, max_iobps=0, max_processes=100)
WITH_IO = replace(LIMITS, max_iobps=1048576)
WITH_CORES = replace(LIMITS, cpu_cores="0,2-3")

UNIFIED = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
36 24 0:31 / /sys/fs/bpf rw shared:10 master:2 propagate_from:1 - bpf bpf rw,mode=700
"""
"""Optional fields, before the separator, come in any number (proc_pid_mountinfo(5))."""


def legacy(root: Path, *controllers: str) -> str:
    """A v1 host's mounts, with directories that are there."""
    lines = [f"25 24 0:23 / {root} ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755"]
    for number, options in enumerate(controllers, start=26):
        mount = root / options
        mount.mkdir()
        lines.append(f"{number} 25 0:{number} / {mount} rw,relatime shared:{number} - cgroup cgroup rw,{options}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    mount = tmp_path / "unified"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    return mount


@pytest.fixture
def mounts(tmp_path: Path) -> dict[str, Path]:
    text = legacy(tmp_path, "cpu,cpuacct", "memory", "pids", "blkio", "xattr,name=systemd")
    return cgroup_v1.find_mounts(text)


def test_the_unified_hierarchy_is_found_behind_any_number_of_optional_fields() -> None:
    assert cgroup_v2.find_mount(UNIFIED) == Path("/sys/fs/cgroup")
    assert cgroup_v2.find_mount(UNIFIED.replace(" shared:9", "")) == Path("/sys/fs/cgroup")
    assert cgroup_v2.find_mount(UNIFIED.replace("shared:9", "shared:9 master:1")) == Path("/sys/fs/cgroup")


def test_a_host_without_a_unified_hierarchy_has_none(tmp_path: Path) -> None:
    assert cgroup_v2.find_mount(legacy(tmp_path, "cpu")) is None
    assert cgroup_v2.find_mount("") is None


def test_controllers_mounted_together_are_found_each(tmp_path: Path, mounts: dict[str, Path]) -> None:
    expected = {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "memory": "memory", "pids": "pids", "blkio": "blkio"}
    assert {controller: mounts[controller] for controller in expected} == {
        controller: tmp_path / folder for controller, folder in expected.items()
    }


def test_the_hybrid_hosts_unified_part_is_no_v1_controller(tmp_path: Path) -> None:
    both = legacy(tmp_path, "memory") + UNIFIED
    assert "/sys/fs/cgroup" not in map(str, cgroup_v1.find_mounts(both).values())
    assert cgroup_v2.find_mount(both) == Path("/sys/fs/cgroup")


def test_a_mount_that_is_not_there_is_not_used(tmp_path: Path) -> None:
    text = legacy(tmp_path, "cpu", "memory")
    (tmp_path / "memory").rmdir()
    found = cgroup_v1.find_mounts(text)
    assert "memory" not in found
    assert found["cpu"] == tmp_path / "cpu"


def test_a_v2_job_has_one_group_with_every_limit(unified: Path) -> None:
    (group,) = CgroupV2(unified, "ab12").groups("7", LIMITS, ())
    assert (group.path, group.unified, group.kill) == (unified / "joblet.slice/ab12/7", True, "cgroup.kill")
    assert dict(group.settings) == {
        "cpu.max": "50000 100000",
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "100",
    }
    assert dict(group.stats)["oom_kill"] == "memory.events:oom_kill"


def test_a_v2_io_limit_covers_each_disk_for_reading_and_writing(unified: Path) -> None:
    (group,) = CgroupV2(unified, "ab12").groups("7", WITH_IO, ("8:0", "259:0"))
    assert [value for file, value in group.settings if file == "io.max"] == [
        "8:0 rbps=1048576 wbps=1048576",
        "259:0 rbps=1048576 wbps=1048576",
    ]
    assert group.lifting == tuple(
        (file, f"{value.split()[0]} rbps=max wbps=max") for file, value in group.settings if file == "io.max"
    )


def test_v2_hands_its_controllers_down_to_the_jobs(unified: Path) -> None:
    CgroupV2(unified, "ab12").prepare()
    for parent in (unified, unified / "joblet.slice", unified / "joblet.slice/ab12"):
        assert set((parent / "cgroup.subtree_control").read_text().split()) == {
            "+cpu",
            "+memory",
            "+pids",
            "+io",
            "+cpuset",
        }


@pytest.mark.parametrize("controller", ["cpu", "memory", "pids"])
def test_v2_without_a_needed_controller_is_refused_by_its_name(unified: Path, controller: str) -> None:
    there = [name for name in ("cpuset", "cpu", "io", "memory", "pids") if name != controller]
    (unified / "cgroup.controllers").write_text(" ".join(there))
    with pytest.raises(HostUnable, match=f"^cgroup setup failed: no {controller} controller$"):
        CgroupV2(unified, "ab12")


def test_v2_without_io_runs_jobs_that_ask_for_no_io_limit(unified: Path) -> None:
    (unified / "cgroup.controllers").write_text("cpu memory pids")
    groups = CgroupV2(unified, "ab12")
    groups.groups("7", LIMITS, ())
    with pytest.raises(HostUnable, match="no io controller"):
        groups.groups("7", WITH_IO, ("8:0",))


def by_controller(groups: list[Group], root: Path) -> dict[str, dict[str, str]]:
    return {group.path.relative_to(root).parts[0]: dict(group.settings) for group in groups}


def test_a_v1_job_has_a_group_in_each_controller(tmp_path: Path, mounts: dict[str, Path]) -> None:
    groups = CgroupV1(mounts, "ab12").groups("7", LIMITS, ())
    assert by_controller(groups, tmp_path) == {
        "cpu,cpuacct": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        "memory": {"memory.limit_in_bytes": "67108864", "memory.swappiness": "0"},
        "pids": {"pids.max": "100"},
        "blkio": {},
    }
    stats = {name for group in groups for name, _ in group.stats}
    assert stats == {"throttled_nsec", "cpu_nsec", "oom_kill", "memory_peak", "processes_peak", "io_read", "io_write"}
    assert [group.oom for group in groups if group.oom] == ["memory.oom_control"]
    assert all(group.path.parts[-3:] == ("joblet.slice", "ab12", "7") and not group.unified for group in groups)


def test_v1_memory_and_swap_together_get_the_same_bound_after_it(tmp_path: Path, mounts: dict[str, Path]) -> None:
    groups = CgroupV1(mounts, "ab12")
    groups.prepare()
    (tmp_path / "memory/joblet.slice/ab12/memory.memsw.limit_in_bytes").write_text("")
    (memory,) = [group for group in groups.groups("7", LIMITS, ()) if group.oom]
    assert memory.settings == (("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "67108864"))


def test_a_v1_io_limit_covers_each_disk_for_reading_and_writing(mounts: dict[str, Path]) -> None:
    *_, blkio = CgroupV1(mounts, "ab12").groups("7", WITH_IO, ("8:0", "8:16"))
    assert sorted(blkio.settings) == sorted(
        (f"blkio.throttle.{way}_bps_device", f"{disk} 1048576") for way in ("read", "write") for disk in ("8:0", "8:16")
    )
    assert blkio.lifting == tuple((file, f"{value.split()[0]} 0") for file, value in blkio.settings)


@pytest.mark.parametrize("controller", ["cpu", "memory", "pids"])
def test_v1_without_a_needed_controller_is_refused_by_its_name(mounts: dict[str, Path], controller: str) -> None:
    del mounts[controller]
    with pytest.raises(HostUnable, match=f"^cgroup setup failed: no {controller} controller$"):
        CgroupV1(mounts, "ab12")


def test_v1_without_blkio_runs_jobs_that_ask_for_no_io_limit(mounts: dict[str, Path]) -> None:
    del mounts["blkio"]
    groups = CgroupV1(mounts, "ab12")
    groups.prepare()
    groups.groups("7", LIMITS, ())
    with pytest.raises(HostUnable, match="no blkio controller"):
        groups.groups("7", WITH_IO, ("8:0",))


def test_v1_binds_a_job_to_cores_within_what_is_above_it(tmp_path: Path, mounts: dict[str, Path]) -> None:
    cpuset = tmp_path / "cpuset"
    (cpuset / "joblet.slice/ab12").mkdir(parents=True)
    (cpuset / "cpuset.mems").write_text("0-1\n")
    (cpuset / "cpuset.cpus").write_text("0-7\n")
    groups = CgroupV1(mounts | {"cpuset": cpuset}, "ab12")
    groups.prepare()
    for group in ("joblet.slice", "joblet.slice/ab12"):
        assert (cpuset / group / "cpuset.mems").read_text() == "0-1\n"
        assert (cpuset / group / "cpuset.cpus").read_text() == "0-7\n"
    assert by_controller(groups.groups("7", WITH_CORES, ()), tmp_path)["cpuset"] == {
        "cpuset.mems": "0-1",
        "cpuset.cpus": "0,2-3",
    }
    assert "cpuset" not in by_controller(groups.groups("7", LIMITS, ()), tmp_path)


def test_v2_binds_a_job_to_cores(unified: Path) -> None:
    (group,) = CgroupV2(unified, "ab12").groups("7", WITH_CORES, ())
    assert ("cpuset.cpus", "0,2-3") in group.settings


def test_a_job_that_asks_for_cores_is_refused_without_the_controller(unified: Path, mounts: dict[str, Path]) -> None:
    (unified / "cgroup.controllers").write_text("cpu io memory pids")
    for groups in (CgroupV2(unified, "ab12"), CgroupV1(mounts, "ab12")):
        groups.groups("7", LIMITS, ())
        with pytest.raises(HostUnable, match=r"^cgroup setup failed: no cpuset controller$"):
            groups.groups("7", WITH_CORES, ())


@given(st.integers(1, 2**31 - 1))
def test_the_quota_is_the_percentage_of_the_period(percent: int) -> None:
    assert quota_us(Limits(percent, 1, 0)) * 100 == percent * PERIOD_US


@pytest.fixture(params=["v1", "v2"])
def cgroups(request: pytest.FixtureRequest, unified: Path, mounts: dict[str, Path]) -> CgroupV1 | CgroupV2:
    made = CgroupV1(mounts, "ab12") if request.param == "v1" else CgroupV2(unified, "ab12")
    made.prepare()
    made.prepare()  # a second server start
    return made


def make_groups(cgroups: CgroupV1 | CgroupV2, name: str) -> list[Path]:
    paths = [group.path for group in cgroups.groups(name, LIMITS, ())]
    for path in paths:
        path.mkdir()
    return paths


def test_leftovers_are_the_groups_of_jobs_and_of_this_server_only(cgroups: CgroupV1 | CgroupV2) -> None:
    assert cgroups.leftovers() == set()
    paths = make_groups(cgroups, "7") + make_groups(cgroups, "8")
    (paths[0].parents[1] / "another" / "9").mkdir(parents=True)
    assert cgroups.leftovers() == {"7", "8"}


def test_an_emptied_v1_group_is_removed(mounts: dict[str, Path]) -> None:
    cgroups = CgroupV1(mounts, "ab12")
    cgroups.prepare()
    make_groups(cgroups, "7")
    make_groups(cgroups, "8")
    cgroups.clean("7")
    assert cgroups.leftovers() == {"8"}


def test_a_v2_group_is_killed_by_its_own_file(unified: Path) -> None:
    cgroups = CgroupV2(unified, "ab12")
    cgroups.prepare()
    (path,) = make_groups(cgroups, "7")
    cgroups.clean("7")
    assert (path / "cgroup.kill").read_text() == "1"


def test_a_group_that_is_gone_is_clean(cgroups: CgroupV1 | CgroupV2) -> None:
    make_groups(cgroups, "8")
    cgroups.clean("7")
    assert cgroups.leftovers() == {"8"}


def test_what_is_above_the_jobs_is_removed_only_when_none_is_left(cgroups: CgroupV1 | CgroupV2) -> None:
    paths = make_groups(cgroups, "7")
    cgroups.remove()
    assert all(path.is_dir() for path in paths)


def test_the_ceiling_is_the_hosts_own() -> None:
    most = host.ceiling()
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert most.max_memory == int(total.split()[1]) // 1024
    assert most.max_cpu % 100 == 0
    assert most.max_cpu >= 100


def test_jobs_see_system_directories_and_neither_secrets_nor_private_paths(tmp_path: Path) -> None:
    view = host.view(View((), (), (), 1 << 20), [tmp_path])
    assert Path("/usr") in view.read_only
    assert Path("/etc/shadow") in view.masked
    assert tmp_path.resolve() in view.masked
    assert not any(path.is_relative_to(shown) for shown in view.read_only for path in (Path("/root"), Path("/home")))


def test_what_the_configuration_shows_and_hides_comes_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, shown = tmp_path / "shared", tmp_path / "shown"
    shared.mkdir()
    shown.mkdir()
    os.chown(shared, 12345, 12345)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOSUID))
    view = host.view(View((shown,), (shared,), (Path("/usr/games"),), 4096), [])
    assert shown in view.read_only
    assert view.writable == (shared,)
    assert {Path("/usr/games"), Path("/etc/shadow")} <= set(view.masked)
    assert view.tmp_bytes == 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_what_cannot_be_shown_safely_is_refused(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    os.chown(shared, 12345, 12345)
    (tmp_path / "roots").mkdir()
    link.symlink_to("shared")

    def refusal(*, show: tuple[Path, ...] = (), write: tuple[Path, ...] = (), private: tuple[Path, ...] = ()) -> str:
        with pytest.raises(HostUnable) as caught:
            host.view(View(show, write, (), 4096), private)
        return str(caught.value)

    assert refusal(show=(tmp_path / "absent",)) == f"isolation: {tmp_path}/absent does not exist"
    assert refusal(show=(link,)) == f"isolation: {link} leads through a symbolic link; write {shared}"
    assert refusal(write=(tmp_path / "roots",)).endswith("belongs to root; give it to an unprivileged user (chown)")
    assert "is not mounted nosuid" in refusal(write=(shared,))
    for private in (shared, shared / "state", tmp_path):
        assert "lay the server's own files open" in refusal(write=(shared,), private=(private,))


def test_io_cannot_be_limited_where_there_is_no_disk() -> None:
    with pytest.raises(HostUnable, match=r"^cgroup setup failed: no disk behind /proc to limit I/O on$"):
        host.backing_disks([Path("/proc")])


def test_paths_that_are_absent_have_no_disk(tmp_path: Path) -> None:
    assert host.backing_disks([tmp_path / "absent"]) == ()


def write(group: Path, files: dict[str, str]) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name).write_text(text)


V2_FILES = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_throttled 3\nthrottled_usec 70000\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n259:0 rbytes=1 wbytes=2 rios=1 wios=1\n"
    "7:3 rbytes=90 wbytes=9 rios=1 wios=1\n",
    "pids.current": "3\n",
}


def test_what_a_v2_job_uses_is_summed_over_disks(unified: Path) -> None:
    write(unified / "joblet.slice/ab12/7", V2_FILES)
    groups = CgroupV2(unified, "ab12")
    assert groups.usage("7") == Usage(2_500_000, 70_000, 4096, 8192, 101, 22, 3)
    assert groups.usage("8") is None


def test_what_a_kernel_does_not_count_is_not_known(unified: Path) -> None:
    write(unified / "joblet.slice/ab12/7", V2_FILES | {"io.stat": ""})
    for file in ("memory.peak", "cpu.stat"):
        (unified / "joblet.slice/ab12/7" / file).unlink()
    assert CgroupV2(unified, "ab12").usage("7") == Usage(memory=4096, io_read=0, io_write=0, processes=3)


def test_what_a_v1_job_uses_is_in_several_groups(tmp_path: Path, mounts: dict[str, Path]) -> None:
    job = "joblet.slice/ab12/7"
    write(
        tmp_path / "cpu,cpuacct" / job,
        {"cpuacct.usage": "2500000999\n", "cpu.stat": "nr_periods 9\nthrottled_time 70000000\n"},
    )
    write(tmp_path / "memory" / job, {"memory.usage_in_bytes": "4096\n", "memory.max_usage_in_bytes": "8192\n"})
    counted = "8:0 Read 100\n8:0 Write 20\n8:0 Total 120\n7:0 Read 1\n7:0 Write 2\nTotal 123\n"
    write(tmp_path / "blkio" / job, {"blkio.throttle.io_service_bytes_recursive": counted})
    write(tmp_path / "pids" / job, {"pids.current": "3\n"})
    groups = CgroupV1(mounts, "ab12")
    assert groups.usage("7") == Usage(2_500_000, 70_000, 4096, 8192, 101, 22, 3)
    (tmp_path / "memory" / job / "memory.usage_in_bytes").unlink()
    assert groups.usage("7") is None  # it goes


def test_what_all_jobs_use_is_told_by_the_group_above_them(
    unified: Path, tmp_path: Path, mounts: dict[str, Path]
) -> None:
    assert CgroupV2(unified, "ab12").total() is None
    write(unified / "joblet.slice/ab12", V2_FILES)
    assert CgroupV2(unified, "ab12").total() == Usage(2_500_000, 70_000, 4096, 8192, 101, 22, 3)
    assert CgroupV1(mounts, "ab12").total() is None
    write(tmp_path / "memory/joblet.slice/ab12", {"memory.usage_in_bytes": "4096\n"})
    own = {"cpuacct.usage": "2500000999\n", "cpu.stat": "throttled_time 7000\n"}
    write(tmp_path / "cpu,cpuacct/joblet.slice/ab12", own)
    assert CgroupV1(mounts, "ab12").total() == Usage(cpu_usec=2_500_000, memory=4096)  # throttled is none of theirs


def test_what_a_v1_kernel_forgets_of_ended_jobs_is_in_the_sum_of_all(tmp_path: Path, mounts: dict[str, Path]) -> None:
    groups = CgroupV1(mounts, "ab12")
    write(tmp_path / "memory/joblet.slice/ab12", {"memory.usage_in_bytes": "4096\n"})

    counted = "blkio.throttle.io_service_bytes_recursive"
    write(tmp_path / "blkio/joblet.slice/ab12", {counted: "8:0 Read 9\n8:0 Write 9\n"})

    def total(**there: str) -> tuple[int | None, int | None]:
        for job, text in there.items():
            write(tmp_path / f"blkio/joblet.slice/ab12/{job}", {counted: text})
        found = groups.total()
        assert found is not None
        return found.io_read, found.io_write

    assert total() == (0, 0)
    assert total(one="8:0 Read 60\n8:0 Write 12\n", other="8:0 Read 40\n8:0 Write 8\n") == (100, 20)
    shutil.rmtree(tmp_path / "blkio/joblet.slice/ab12/one")
    assert total() == (100, 20)  # its receipt has not come yet
    groups.add_ended(Receipt(io_read=60, io_write=12))
    assert total(other="8:0 Read 41\n8:0 Write 8\n") == (101, 20)
    groups.add_ended(Receipt())
    assert total(other="") == (101, 20)

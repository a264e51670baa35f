"""Each attempt is able to fail: as plain root, without isolation, it succeeds.

Where even that cannot be shown on this kernel the test is skipped for a reason that it has looked up. What would harm
the host is made in a machine of its own only: set JOBLET_TEST_VM=1 there.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import gzip
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare_runner import BareRunner

from joblet.escape import HostContext, Verdict
from joblet.escape.attempts.frame import Attempt
from joblet.escape.observed import Scene
from joblet.escape.program import load_attempts
from joblet.escape.suite import make_attempts
from joblet.escape.verdict import Result, judge
from joblet.escape.victims import make_victims

IN_VM = os.environ.get("JOBLET_TEST_VM") == "1"


@pytest.fixture(scope="module")
def attack() -> Iterator[Callable[[Attempt], Result]]:
    """Makes an attempt on victims that are plain processes too."""
    # not below /tmp, which may be another file system than the system's
    folder = Path(tempfile.mkdtemp(prefix="joblet-escape-", dir="/var/tmp"))
    state = folder / "state"
    writable = folder / "writable"
    for path in (state, writable):
        path.mkdir()
    secrets = [state / "joblet.db", folder / "config.yml", folder / "server-key.pem"]
    for path in secrets:
        path.write_text("not a secret\n")
    host = HostContext(state, secrets[1], (secrets[2],), writable=(writable,))
    try:
        with asyncio.Runner() as loop:
            runner = BareRunner(folder)
            context = make_victims(runner, host)
            scene = Scene(runner, loop.run(context.__aenter__()), 0)

            async def make(attempt: Attempt) -> Result:
                async for one, outcome in make_attempts(scene, [attempt]):
                    return judge(one, outcome)
                raise AssertionError("no outcome")

            try:
                yield lambda attempt: loop.run(make(attempt))
            finally:
                loop.run(context.__aexit__(None, None, None))
                loop.run(runner.close())
                remove_files(scene.victims.context["job"]["name"])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("attempt", load_attempts(), ids=lambda attempt: attempt.name)
def test_attempt_succeeds_without_isolation(attempt: Attempt, attack: Callable[[Attempt], Result]) -> None:
    if attempt.harmful and not IN_VM:
        pytest.skip("it harms the host: only in a machine of its own (JOBLET_TEST_VM=1)")
    if reason := why_not_here(attempt.name):
        pytest.skip(f"not provable here: {reason}")
    with huge_pages():
        result = attack(attempt)
    assert result.outcome.name == "done", result.outcome
    assert result.verdict in (Verdict.BREACH, Verdict.GAP)


def remove_files(name: str) -> None:
    """What the victim that is no job has left in places that it shares with all."""
    for place in ("/tmp", "/dev/shm"):
        Path(place, name).unlink(missing_ok=True)


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    """Two in the host's pool, where it has none, for the attempt that takes them."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    if int(before) == 0:
        pool.write_text("2")
    try:
        yield
    finally:
        pool.write_text(before)


def why_not_here(name: str) -> str:
    """Why even root cannot do this on this machine; empty when nothing is known that keeps it."""
    for names, holds, reason in OBSTACLES:
        if name in names and holds():
            return reason
    return ""


def lacks(option: str) -> Callable[[], bool]:
    """Whether the kernel was built without an option; False where that cannot be found out."""
    return lambda: bool(KERNEL) and not re.search(rf"^CONFIG_{option}=[ym]", KERNEL, re.MULTILINE)


def kernel_options() -> str:
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        if path.exists():
            return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    return ""


def none_of(*patterns: str) -> Callable[[], bool]:
    return lambda: not any(glob.glob(pattern) for pattern in patterns)


def no_disk_opens() -> bool:
    for path in glob.glob("/dev/[svx]*d[a-z]") + glob.glob("/dev/nvme*n*"):
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))
            return False
    return True


def own_capabilities(pid: str) -> int:
    found = re.search(r"^CapPrm:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found.group(1), 16)


def process_1_has_more() -> bool:
    """Then it cannot be looked into: ptrace(2), access mode checking."""
    return bool(own_capabilities("1") & ~own_capabilities("self"))


def no_x32() -> bool:
    on = "syscall.x32=y" in Path("/proc/cmdline").read_text()
    return lacks("X86_X32_ABI")() or (not lacks("X86_X32_DISABLED")() and not on)


KERNEL = kernel_options()
CAP_SYS_RESOURCE = 24

OBSTACLES: list[tuple[tuple[str, ...], Callable[[], bool], str]] = [
    (("list the users' homes",), none_of("/home/*"), "no user of this host has a home"),
    (("open the processors' registers",), none_of("/dev/cpu/0/*"), "this host has no /dev/cpu (module msr)"),
    (("open the sockets to the hypervisor",), none_of("/dev/vsock"), "this host has no /dev/vsock"),
    (("press a magic key (sysrq-trigger)",), lacks("MAGIC_SYSRQ"), "this kernel has no magic keys"),
    (("read the kernel's memory (kcore)",), lacks("PROC_KCORE"), "this kernel has no /proc/kcore"),
    (
        (
            "read the environment of process 1",
            "open the memory of process 1",
            "enter the root directory of process 1",
            "open the program of process 1 (CVE-2019-5736)",
            "take a descriptor out of process 1 (pidfd_getfd)",
            "enter namespaces by process (setns)",
        ),
        process_1_has_more,
        "process 1 of this host has capabilities that this root lacks",
    ),
    (
        ("lower the own OOM score", "raise a limit of open files (setrlimit)"),
        lambda: not own_capabilities("self") >> CAP_SYS_RESOURCE & 1,
        "this root has no CAP_SYS_RESOURCE",
    ),
    (("open a disk",), no_disk_opens, "this root may open no disk (device control group)"),
    (("open the machine's memory and ports",), none_of("/dev/mem", "/dev/port"), "this kernel has no /dev/mem"),
    (
        ("have the kernel start a program for a device (uevent_helper)",),
        none_of("/sys/kernel/uevent_helper"),
        "this kernel starts no helper (CONFIG_UEVENT_HELPER)",
    ),
    (("start another kernel (kexec_load)",), lacks("KEXEC"), "this kernel has no kexec_load"),
    (
        ("start another kernel from a file (kexec_file_load)",),
        lacks("KEXEC_FILE"),
        "this kernel has no kexec_file_load",
    ),
    (
        ("load a module (init_module)", "load a module from a file (finit_module)", "remove a module (delete_module)"),
        lacks("MODULES"),
        "this kernel has no modules",
    ),
    (
        ("open the processor's ports (iopl)", "open one port of the processor (ioperm)"),
        lacks("X86_IOPL_IOPERM"),
        "this kernel has no iopl and ioperm",
    ),
    (("make an x32 system call",), no_x32, "this kernel has no x32 entry, or it is not switched on (syscall.x32=y)"),
    (("use the kernel's ciphers (AF_ALG)",), lacks("CRYPTO_USER_API"), "this kernel has no AF_ALG"),
    (
        ("connect to a service of the host by its socket (docker, dbus, systemd)",),
        none_of("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/dev/log"),
        "none of these services runs on this host",
    ),
    (
        ("have the kernel start a program for an empty group (release_agent)",),
        none_of("/sys/fs/cgroup/*/release_agent"),
        "no version 1 control groups are mounted",
    ),
]

"""Starts the real shim the way the server does, one job at a time, and waits for events only."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.resources
import importlib.util
import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
UID_BASE = 700_000 + 1_000_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
ID_COUNT = 65536
TIMEOUT = float(os.environ.get("JOBLET_TEST_TIMEOUT", "30"))
PATH = "/usr/local/bin:/usr/bin:/bin"
CGROUPS = Path("/sys/fs/cgroup")
V2 = (CGROUPS / "cgroup.controllers").exists()
"""the host has the unified hierarchy only"""

Entries = list[tuple[str, str]]


def encode(entries: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in entries)


def base_entries(job_id: str = "7", **changes: str) -> Entries:
    """A job with the host's programs, up to its environment; a change of None leaves the entry out."""
    entries = {
        "version": "5",
        "id": job_id,
        "hostname": "job-7",
        "uid_base": str(UID_BASE),
        "id_count": str(ID_COUNT),
        "grace_ms": "5000",
        "open_files": "1024",
        "tmp_bytes": str(16 << 20),
        "work": "/work",
    }
    entries.update(changes)
    shown = [path for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc") if os.path.lexists(path)]
    return [*entries.items(), *(("ro", path) for path in shown)]


def job_entries(*argv: str, extra: Entries | None = None, env: dict[str, str] | None = None, **changes: str) -> Entries:
    environment = {"PATH": PATH, "HOME": "/work"} | (env or {})
    return [
        *base_entries(**changes),
        *(extra or []),
        *(("env", f"{key}={value}") for key, value in environment.items()),
        *(("arg", word) for word in argv),
        ("end", ""),
    ]


def wait_readable(fd: int, timeout: float = TIMEOUT) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(timeout * 1000):
        raise TimeoutError


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.002)


def landlock_abi() -> int:
    """Of this kernel; -1 where there is none: landlock_create_ruleset(2)."""
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1))


@dataclass
class Shim:
    """A started monitor."""

    pid: int
    pidfd: int
    directory: Path
    report_fd: int
    _report: bytes = b""
    status: int | None = None

    def report(self) -> str:
        """The report line; empty when the shim died without one."""
        while self.report_fd >= 0:
            wait_readable(self.report_fd)
            chunk = os.read(self.report_fd, 4096)
            self._report += chunk
            if not chunk:
                os.close(self.report_fd)
                self.report_fd = -1
        return self._report.decode()

    def started(self) -> int:
        """The init's process id, once the command runs."""
        report = self.report()
        assert report.startswith("started "), (report, self.log)
        return int(report.split()[1])

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self) -> dict[str, str]:
        """The exit record of the ended shim; empty when it wrote none."""
        if self.status is None:
            wait_readable(self.pidfd)
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            assert result is not None
            self.status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        return self.record

    @property
    def record(self) -> dict[str, str]:
        try:
            text = (self.directory / "exit").read_text()
        except FileNotFoundError:
            return {}
        assert text.endswith("\nend=1\n")
        return dict(line.split("=", 1) for line in text.splitlines())

    @property
    def log(self) -> bytes:
        try:
            return (self.directory / "log").read_bytes()
        except FileNotFoundError:
            return b""

    @property
    def marks(self) -> list[tuple[int, int]]:
        """Times and offsets of the index."""
        return [(at, offset) for at, offset, _ in self.stream_marks]

    @property
    def stream_marks(self) -> list[tuple[int, int, bool]]:
        """The same, and whether it is of stderr, or of the monitor."""
        records = struct.iter_unpack("=qQ", (self.directory / "index").read_bytes())
        return [(at, offset & ~(1 << 63), bool(offset >> 63)) for at, offset in records]

    def await_log(self, text: bytes) -> None:
        """Until the log holds the text: the job says so, the log grows; looking is cheap, missing it is not."""
        deadline = time.monotonic() + TIMEOUT
        while text not in self.log:
            assert time.monotonic() < deadline
            assert not self.is_over(0.002), self.log

    def is_over(self, timeout: float = 0.0) -> bool:
        with suppress(TimeoutError):
            wait_readable(self.pidfd, timeout)
            return True
        return False

    def lock_is_free(self) -> bool:
        with (self.directory / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def close(self) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.wait()
        for fd in {self.report_fd, self.pidfd} - {-1}:
            os.close(fd)
        self.report_fd = self.pidfd = -1


@dataclass
class Launcher:
    """Makes job directories below one directory and starts shims in them."""

    binary: Path
    directory: Path
    shims: list[Shim] = field(default_factory=list)

    def make_directory(self, parent: Path | None = None) -> Path:
        job = Path(tempfile.mkdtemp(dir=parent or self.directory))
        (job / "work").mkdir()
        os.chown(job / "work", UID_BASE, UID_BASE)
        (job / "lock").touch()
        return job

    def start(
        self, spec: bytes | Entries, directory: Path | None = None, through: list[str] | None = None, job_id: str = "7"
    ) -> Shim:
        """Start a shim, or a command that becomes one."""
        job = directory or self.make_directory()
        argv = through or [str(self.binary), job_id]
        text = spec if isinstance(spec, bytes) else encode(spec)
        memfd = os.memfd_create("spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        lock = os.open(job / "lock", os.O_RDWR | os.O_CLOEXEC)
        directory_fd = os.open(job, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        report, report_write = os.pipe2(os.O_CLOEXEC)
        fds = [memfd, directory_fd, report_write, lock]
        try:
            os.write(memfd, text)
            os.lseek(memfd, 0, os.SEEK_SET)
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, seals)
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Away from the numbers that they are to get, or one would be overwritten before its turn.
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in [null, null, *fds]]
            actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(high, [0, 1, 3, 4, 5, 6], strict=True)]
            pid = os.posix_spawn(
                shutil.which(argv[0]) or argv[0],
                argv,
                sanitizer_environment() if through is None else {"PATH": f"{PATH}:/usr/sbin:/sbin"},
                file_actions=actions,
                setsid=True,
                setsigmask=[],
            )
            for fd in high:
                os.close(fd)
        finally:
            for fd in [null, *fds]:
                os.close(fd)
        shim = Shim(pid, os.pidfd_open(pid), job, report)
        self.shims.append(shim)
        return shim

    def run(self, *argv: str, extra: Entries | None = None, env: dict[str, str] | None = None, **changes: str) -> Shim:
        """A job from its start to its end, of which the command did run."""
        shim = self.start(job_entries(*argv, extra=extra, env=env, **changes))
        shim.started()
        shim.wait()
        return shim

    def close(self) -> None:
        for shim in self.shims:
            shim.close()
        self.shims.clear()
        shutil.rmtree(self.directory, ignore_errors=True)


def sanitizer_environment() -> dict[str, str]:
    """Nothing, but for a shim that was compiled to look for its own mistakes."""
    return {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}


def v1_controllers() -> list[str]:
    return [name for name in ("memory", "pids", "cpu", "freezer") if (CGROUPS / name / "cgroup.procs").exists()]


def entering(group: Path) -> tuple[str, str]:
    """The entry that makes a group of either version."""
    return ("cgroup2" if (group.parent / "cgroup.controllers").exists() else "cgroup", str(group))


def members(group: Path) -> list[int]:
    return [int(line) for line in (group / "cgroup.procs").read_text().split()]


def processes_of(owner: int) -> list[int]:
    """Pids of the living processes whose user is in the range that begins with `owner`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                uid = int(status["Uid"].split()[0])
                if owner <= uid < owner + ID_COUNT and "Z" not in status["State"]:
                    found.append(int(entry.name))
    return found


def load_build() -> ModuleType:
    """hatch_build.py, which no package holds."""
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shim_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim of this source, warnings being errors. JOBLET_TEST_SHIM: another, say with sanitizers."""
    if given := os.environ.get("JOBLET_TEST_SHIM"):
        return Path(given)
    hatch_build = load_build()
    try:
        compiler = hatch_build.find_compiler(hatch_build.wanted_machine())
    except hatch_build.NoCompilerError:
        return Path(str(importlib.resources.files("joblet"))) / "_bin/joblet-shim"
    binary = tmp_path_factory.mktemp("shim") / "joblet-shim"
    hatch_build.compile_shim(binary, compiler, ("-Werror",))
    return binary


@pytest.fixture
def launcher(shim_binary: Path, tmp_path: Path) -> Iterator[Launcher]:
    """Starts shims; those that still run at the end of the test are killed."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    made = Launcher(shim_binary, jobs)
    yield made
    made.close()


@pytest.fixture
def group() -> Iterator[Callable[[str], Path]]:
    """Names a group for a shim to create, with the controller of that name; afterwards it must be gone.

    On v2 `unified` and `freezer` are no controllers: every group can do that.
    """
    named: list[Path] = []

    def name(controller: str) -> Path:
        hierarchy = CGROUPS if V2 else CGROUPS / controller
        if not (hierarchy / "cgroup.procs").exists():
            pytest.skip(f"this host has no {hierarchy}")
        if V2 and controller not in ("unified", "freezer"):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        named.append(hierarchy / f"joblet-test-{os.getpid()}-{len(named)}")
        return named[-1]

    yield name
    left = [path for path in named if path.exists()]
    for path in left:
        path.rmdir()
    assert left == []

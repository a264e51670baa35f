"""A real joblet server on loopback with real certificates, and stock gRPC clients for it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import importlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import yaml

from joblet import pki

ROOT = Path(__file__).parent.parent
READY = re.compile(r"server accepting connections \| .*port=(\d+)")
END = "(end)"
"""stands in `lines` for the end of a server"""
PATIENCE = float(os.environ.get("JOBLET_TEST_TIMEOUT", "60"))
"""seconds until a wait counts as failed; never a measure of speed"""

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
"""which of the processes that share the tests this is"""
ID_BASE = int(os.environ.get("JOBLET_TEST_ID_BASE", "0"), 0) or (0x10000000 + WORKER * 0x02000000 if WORKER else 0)
"""first id of the jobs of servers that do not say it; 0 is the product's own. Keeps apart what runs at the same time"""


def make_certificates(folder: Path) -> Path:
    """A CA, the server's certificate, and clients `admin` and `viewer`."""
    ca = pki.create_ca()
    pki.save(ca, folder, "ca")
    pki.save(pki.issue_server(ca), folder, "server")
    for role in pki.Role:
        pki.save(pki.issue_client(ca, role, role), folder, role)
    return folder


def compile_stock_client(target: Path, proto: Path) -> tuple[ModuleType, ModuleType]:
    """Messages and stubs that stock grpc_tools makes of `proto`."""
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}"]
    subprocess.run([*command, f"--python_out={target}", f"--grpc_python_out={target}", str(proto)], check=True)
    sys.path.insert(0, str(target))
    name = proto.stem
    return importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc")


class Server:
    """`joblet serve` as a process of its own, with its state in `directory`."""

    def __init__(self, directory: Path, certificates: Path, **sections: dict[str, object]) -> None:
        self.directory = directory
        self.certificates = certificates
        self.state = directory / "state"
        self.port = 0
        self.lines: list[str] = []
        self.program = [sys.executable, "-m", "joblet"]
        """what the server is started by"""
        self._sections = sections
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._began_at = 0
        self.on_line: Callable[[str], None] = lambda line: None
        """told of every line of the server's log, in a thread of its own"""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **options: Any) -> Server:
        """Start the server, with further options of Popen, and wait until it accepts connections."""
        self.begin(**options)
        return self.ready()

    def begin(self, **options: Any) -> None:
        """Start the server, and wait for nothing."""
        config = {
            "server": {"address": "127.0.0.1", "port": self.port, "stateDir": str(self.state)},
            "security": {
                "caCert": str(self.certificates / "ca-cert.pem"),
                "serverCert": str(self.certificates / "server-cert.pem"),
                "serverKey": str(self.certificates / "server-key.pem"),
            },
        }
        if ID_BASE:
            config["isolation"] = {"idBase": ID_BASE, "idRanges": 512}
        for name, values in self._sections.items():
            config[name] = {**config.get(name, {}), **values}
        path = self.directory / "joblet-config.yml"
        path.write_text(yaml.safe_dump(config))
        self._began_at = len(self.lines)
        self._process = subprocess.Popen(
            [*self.program, "serve", "--config", str(path)],
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self._reader = threading.Thread(target=self._read_lines, args=(self._process,), daemon=True)
        self._reader.start()

    def ready(self) -> Server:
        """Wait until the server accepts connections."""
        self.port = int(self.wait_for_line(READY, self._began_at).group(1))
        return self

    def wait_for_line(self, pattern: re.Pattern[str], start: int = 0) -> re.Match[str]:
        """The first line of the server's log, from line `start` on, that holds `pattern`."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                lines = self.lines[start:]
                for line in lines:
                    if found := pattern.search(line):
                        return found
                over = END in self.lines[max(start, self._began_at) :]  # not an earlier server's end
                start += len(lines)
                if over or not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line {pattern.pattern!r} in:\n" + "\n".join(self.lines))

    def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        assert self._reader is not None
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def close(self) -> None:
        """End the server and every job it left running."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        for monitor in self.monitors():
            os.kill(monitor, signal.SIGUSR1)
            wait_for_end(monitor)
        remove_groups(self.state)

    def monitors(self) -> list[int]:
        """Pids of the shims of this server's jobs that live."""
        found = []
        for path in self.state.glob("jobs/*/monitor"):
            values = dict(re.findall(r"^(pid|start)=(\d+)$", path.read_text(errors="replace"), re.MULTILINE))
            if len(values) < 2:  # damaged by a test
                continue
            if not (path.parent / "exit").exists() and start_time(int(values["pid"])) == values["start"]:
                found.append(int(values["pid"]))
        return found

    def descriptors_of(self, path: Path) -> list[int]:
        """The server's open descriptors of a file."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if entry.readlink() == path:
                    found.append(int(entry.name))
        return found

    def channel(self, name: str | None = "admin", certificates: Path | None = None) -> grpc.Channel:
        """A channel of stock grpcio with the certificate of `name`, or none."""
        credentials = self.credentials(name, certificates)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.secure_channel(f"localhost:{self.port}", credentials, options)

    def credentials(self, name: str | None = "admin", certificates: Path | None = None) -> grpc.ChannelCredentials:
        """What a stock client shows, and whom it trusts."""
        folder = certificates or self.certificates
        ca = (self.certificates / "ca-cert.pem").read_bytes()
        key = (folder / f"{name}-key.pem").read_bytes() if name else None
        cert = (folder / f"{name}-cert.pem").read_bytes() if name else None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def rnx(
        self, *args: str, name: str = "admin", certificates: Path | None = None, **kwargs: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `rnx` against this server."""
        kwargs = {"capture_output": True, "text": True, "timeout": PATIENCE, **kwargs}
        return subprocess.run(self.rnx_command(*args, name=name, certificates=certificates), check=False, **kwargs)

    def rnx_command(self, *args: str, name: str = "admin", certificates: Path | None = None) -> list[str]:
        folder = certificates or self.certificates
        return [
            *(sys.executable, "-m", "rnx"),
            f"--server=localhost:{self.port}",
            f"--cert={folder / f'{name}-cert.pem'}",
            f"--key={folder / f'{name}-key.pem'}",
            f"--ca={self.certificates / 'ca-cert.pem'}",
            *args,
        ]

    def _read_lines(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
            self.on_line(line)
        with self._news:
            self.lines.append(END)
            self._news.notify_all()


class Stock:
    """Calls of a stock client, for tests that are not about the client."""

    def __init__(self, channel: grpc.Channel, messages: ModuleType, stubs: ModuleType) -> None:
        self.pb = messages
        self.stub = stubs.JobletServiceStub(channel)

    def run(self, command: str, *args: str, **limits: int) -> Any:
        return self.stub.RunJob(self.pb.RunJobReq(command=command, args=args, **limits))

    def started(self, command: str, *args: str, **limits: int) -> Any:
        """Run a job and wait until its command has been exec'd."""
        return self.run(command, *args, waitForStart=True, **limits)

    def status(self, job_id: str) -> Any:
        return self.stub.GetJobStatus(self.pb.GetJobStatusReq(id=job_id))

    def stop(self, job_id: str) -> Any:
        return self.stub.StopJob(self.pb.StopJobReq(id=job_id))

    def list(self) -> Any:
        return self.stub.ListJobs(self.pb.EmptyRequest()).jobs

    def logs(self, job_id: str, **options: Any) -> Iterator[bytes]:
        for chunk in self.stub.GetJobLogs(self.pb.GetJobLogsReq(id=job_id, **options)):
            yield chunk.payload

    def output(self, job_id: str) -> bytes:
        """The whole log of a job; waits for its end."""
        return b"".join(self.logs(job_id))

    def finish(self, command: str, *args: str, **limits: int) -> tuple[Any, bytes]:
        """Run a job to its end: its final status and its output."""
        job_id = self.run(command, *args, **limits).id
        output = self.output(job_id)
        return self.status(job_id), output


def poll_until(holds: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat of a process that has not ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def open_descriptors() -> set[tuple[str, str]]:
    """Descriptors of this process and what they are of. What is left by earlier tests may be closed at any time."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def wait_for_end(pid: int) -> None:
    """Wait until a process, anybody's child, has ended."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        # EINVAL: being reaped at this moment
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        return
    try:
        ready, _, _ = select.select([fd], [], [], PATIENCE)
        assert ready, f"process {pid} goes on"
    finally:
        os.close(fd)


@contextlib.contextmanager
def bound_by_modes() -> Iterator[None]:
    """Let this thread, and those it starts meanwhile, open what a file's mode lets it and no more: root too."""
    libc, header, held = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, held) == 0  # capget(2)
    effective, *others = struct.unpack("6I", held)
    # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))
    assert libc.capset(header, struct.pack("6I", effective & ~(1 << 1 | 1 << 2), *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


@contextlib.contextmanager
def mounted_nosuid(folder: Path) -> Iterator[Path]:
    """A directory as `isolation.writable` asks for it: mounted over itself, nosuid."""
    subprocess.run(["mount", "-o", "bind,nosuid", folder, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remove_groups(state: Path) -> None:
    """Remove the empty control groups of the server with this state directory."""
    instance = state / "instance"
    if instance.exists():
        for base in groups(instance.read_text().strip()):
            for group in [*base.glob("*/"), base]:
                with contextlib.suppress(OSError):
                    group.rmdir()


def groups(pattern: str) -> list[Path]:
    """The control groups of servers, of each hierarchy, whose name matches."""
    # os.walk minds no group of others that goes meanwhile; Path.glob does
    slices = [(folder, names) for folder, names, _ in os.walk("/sys/fs/cgroup") if folder.endswith("/joblet.slice")]
    return [Path(folder, name) for folder, names in slices for name in fnmatch.filter(names, pattern)]


def own_ids() -> tuple[int, int]:
    """First id and ranges of a pool that is this process's alone, so that what is left of its jobs is seen."""
    ranges = 256
    return 0x30000000 + os.getpid() % 64 * (ranges << 16), ranges


def processes_of(owner: int, ranges: int = 1) -> list[int]:
    """Pids of the living processes whose user is in the range, or so many, that begin with `owner`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "status").read_text()
            except OSError:
                continue
            uid = re.search(r"^Uid:\t(\d+)", text, re.MULTILINE)
            assert uid
            if owner <= int(uid.group(1)) < owner + ranges * 65536 and "State:\tZ" not in text:
                found.append(int(entry.name))
    return found


def memory_kb(pid: int, key: str = "VmRSS") -> int:
    """A line of /proc/PID/status, in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found.group(1))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_MODULES = """
import sys
from rnx.main import main
sys.argv = ["rnx", *sys.argv[1:]]
try:
    main()
except SystemExit:
    sys.stderr.write("\\n" + " ".join(name for name, module in sys.modules.items() if module is not None))
"""


def modules_of(*arguments: str, **environment: str) -> set[str]:
    """The modules that `rnx` has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _MODULES, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())

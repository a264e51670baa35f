"""What a job sees, may do and may use."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from harness import ID_BASE, Server, Stock, cpu_seconds, poll_until, processes_of


def python(client: Stock, code: str, **limits: int) -> tuple[object, str]:
    """Run Python code as a job to its end: final status and output."""
    status, output = client.finish("python3", "-c", code, **limits)
    return status, output.decode()


def test_first_process_is_the_init(client: Stock, server: Server) -> None:
    job = client.started("bash", "-c", "echo $PPID; sleep 100")
    assert next(client.logs(job.id)) == b"1\n"
    init = re.search(r"init=(\d+)", (server.state / "jobs" / job.id / "started").read_text())
    assert init
    status = Path(f"/proc/{init.group(1)}/status").read_text()
    assert status.startswith("Name:\tjoblet-shim\n")
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
    client.stop(job.id)


def test_no_host_process_is_visible(client: Stock) -> None:
    code = "import os; print(*sorted(int(n) for n in os.listdir('/proc') if n.isdigit()), os.getpid())"
    _, output = python(client, code)
    *visible, own = [int(pid) for pid in output.split()]
    assert visible == [own]


def test_host_tmp_is_absent(client: Stock, tmp_path: Path) -> None:
    witness = Path("/tmp") / f"joblet-witness-{os.getpid()}"
    witness.write_text("x")
    try:
        _, output = python(client, f"import os; print(os.listdir('/tmp'), os.path.exists({str(tmp_path)!r}))")
    finally:
        witness.unlink()
    assert output == "[] False\n"


def test_tmp_and_work_directory_are_writable(client: Stock) -> None:
    status, output = client.finish("bash", "-c", "echo 1 >/tmp/a && echo 2 >b && cat /tmp/a /work/b && pwd")
    assert (status.status, output) == ("COMPLETED", b"1\n2\n/work\n")


def test_tmp_is_gone_from_the_next_job(client: Stock) -> None:
    client.finish("bash", "-c", "echo 1 >/tmp/left; echo 1 >/dev/shm/left; echo 1 >/work/left")
    _, output = client.finish("ls", "-A", "/tmp", "/dev/shm", "/work")
    assert b"left" not in output


def test_host_name_is_its_own(client: Stock) -> None:
    job = client.run("hostname")
    assert client.output(job.id) == f"job-{job.id}\n".encode()
    assert f"job-{job.id}" != socket.gethostname()


@pytest.mark.parametrize("path", ["/usr/x", "/bin/x", "/etc/x", "/x", "/lib/x", "/dev/x", "/proc/x"])
def test_system_is_read_only(client: Stock, path: str) -> None:
    status, _ = client.finish("touch", path)
    assert status.status == "FAILED"
    assert not os.path.exists(path)


def test_the_servers_files_cannot_be_read(client: Stock, server: Server) -> None:
    secrets = [*server.certificates.iterdir(), *(p for p in server.state.rglob("*") if p.is_file())]
    assert server.state / "joblet.db" in secrets
    code = "import sys\nfor path in sys.argv[1:]:\n try: open(path).read(1); print('READ', path)\n except OSError: pass"
    names = [name for name in map(str, secrets) if name.encode(errors="ignore").decode() == name]  # a message's text
    status, output = client.finish("python3", "-c", code, *names)
    assert (status.status, output) == ("COMPLETED", b"")


def test_secrets_of_the_host_cannot_be_read(client: Stock) -> None:
    _, output = client.finish("bash", "-c", "cat /etc/shadow /etc/gshadow; ls -A /etc/ssh /etc/ssl/private; true")
    assert b"root:" not in output
    assert b"key" not in output


def test_no_capability_and_no_new_privileges(client: Stock) -> None:
    _, output = client.finish("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status")
    values = dict(line.split(":\t") for line in output.decode().splitlines())
    assert {values[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


def test_root_of_a_job_is_nobody_on_the_host(client: Stock, server: Server) -> None:
    job = client.started("bash", "-c", "id -u; touch mine; sleep 100")
    lines = client.logs(job.id)
    assert next(lines) == b"0\n"
    init = int(re.search(r"init=(\d+)", (server.state / "jobs" / job.id / "started").read_text()).group(1))
    uid = int(re.search(r"^Uid:\t(\d+)", Path(f"/proc/{init}/status").read_text(), re.MULTILINE).group(1))
    assert uid >= (ID_BASE or 0x70000000)
    client.stop(job.id)


def test_two_live_jobs_have_different_users(client: Stock, server: Server) -> None:
    jobs = [client.started("sleep", "100") for _ in range(2)]
    owners = {(server.state / "jobs" / job.id / "work").stat().st_uid for job in jobs}
    assert len(owners) == 2
    for job in jobs:
        client.stop(job.id)


def test_only_standard_descriptors_are_open(client: Stock) -> None:
    _, output = python(client, "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
    assert output == "[0, 1, 2]\n"


@pytest.mark.parametrize(
    "escape",
    [
        "mount -t tmpfs none /tmp",
        "unshare -U true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "chroot / true",
        "hostname other",
        "mknod /work/disk b 254 0",
        "chown 12345 /work",
        "kill -9 1; kill -0 1 && false",
    ],
)
def test_escape_is_refused(client: Stock, escape: str) -> None:
    status, output = client.finish("bash", "-c", escape)
    assert status.status == "FAILED", output


def test_a_job_over_its_memory_fails_for_that_reason(client: Stock) -> None:
    status, _ = python(client, "x = bytearray(200 << 20); print(len(x))", maxMemory=64)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", 137, "out of memory")


def test_memory_within_the_limit_is_given(client: Stock) -> None:
    status, output = python(client, "x = bytearray(40 << 20); print(len(x))", maxMemory=128)
    assert (status.status, output) == ("COMPLETED", f"{40 << 20}\n")


@pytest.mark.alone
def test_cpu_limit_is_kept(client: Stock) -> None:
    """20 % of one core, over 3 s: the kernel's own account of the CPU time, against the clock."""
    code = (
        "import time, resource\n"
        "def used(): use = resource.getrusage(resource.RUSAGE_SELF); return use.ru_utime + use.ru_stime\n"
        "begin, before = time.monotonic(), used()\n"
        "while time.monotonic() < begin + 3: pass\n"
        "print((used() - before) / (time.monotonic() - begin))"
    )
    _, output = python(client, code, maxCPU=20)
    assert 0.17 <= float(output) <= 0.23


def test_fork_bomb_stays_inside_its_limit(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"defaultProcessLimit": 50, "cleanupTimeout": "1s"}).start()
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "  while True:\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    made += 1\n"
        "except BlockingIOError: print(made, flush=True)\n"
        "time.sleep(1000)"
    )
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("python3", "-c", code)
        made = int(next(client.logs(job.id)))
        # the init and the first process take two of the fifty
        assert made == 48
        assert client.stop(job.id).status == "STOPPED"
    assert server.monitors() == []


def test_io_limit_is_set_on_the_disk(client: Stock) -> None:
    """Direct writes at 1 MB/s: 4 MB cannot take less than 3 s. One-sided, so no slow machine can fail it."""
    code = (
        "import mmap, os, time\n"
        "try: fd = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)\n"
        "except OSError: print('no O_DIRECT'); raise SystemExit\n"
        "page = mmap.mmap(-1, 1 << 20)\n"
        "start = time.monotonic()\n"
        "for _ in range(4): os.write(fd, page)\n"
        "print(time.monotonic() - start)"
    )
    status, output = python(client, code, maxIOBPS=1_000_000)
    if output == "no O_DIRECT\n" or "no disk behind" in status.reason:
        pytest.skip("the state directory is not on a disk whose I/O can be limited and measured")
    assert status.status == "COMPLETED"
    assert float(output) > 2.5


def test_an_io_limit_that_cannot_be_set_fails_the_job(certificates: Path, stock) -> None:
    """A file system in memory has no disk to limit: the job does not run with less than it asked for."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        server = Server(Path(folder), certificates).start()
        try:
            with server.channel() as channel:
                status, output = Stock(channel, *stock).finish("echo", "ran", maxIOBPS=1_000_000)
        finally:
            server.close()
    reason = f"cgroup setup failed: no disk behind {folder}/state/jobs to limit I/O on"
    assert (status.status, status.exitCode, status.reason) == ("FAILED", -1, reason)
    assert output == f"joblet: {reason}\n".encode()


WAIT_FOR_IO = "dd if=/dev/zero of=f bs=64M count=1 oflag=direct & until [ -e go ]; do sleep 0.01; done"


@pytest.fixture
def waiting(client: Stock, server: Server) -> str:
    """The id of a job one of whose processes waits for its I/O, for a quarter of an hour."""
    client.finish("bash", "-c", "dd --version")  # so that it need not be read from the disk
    job = client.started("bash", "-c", WAIT_FOR_IO, maxIOBPS=65536)

    if "no disk behind" in client.status(job.id).reason:
        pytest.skip("the state directory is not on a disk whose I/O can be limited")
    poll_until(lambda: any("(dd) D" in stat_of(pid) for pid in processes_in(server, job.id)))
    return job.id


def processes_in(server: Server, job_id: str) -> list[int]:
    return processes_of((server.state / "jobs" / job_id / "work").stat().st_uid)


def stat_of(pid: int) -> str:
    """Empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""


def test_a_job_that_waits_for_its_io_can_be_stopped(client: Stock, waiting: str) -> None:
    stopped = client.stub.StopJob(client.pb.StopJobReq(id=waiting, graceMs=0))
    assert stopped.status == "STOPPED"


def test_a_job_whose_io_limit_may_keep_it_from_starting_can_be_stopped(client: Stock) -> None:
    """At two bytes a second, on control groups v2, the disk's share of making it a work directory takes an hour."""
    job = client.run("sleep", "1000", maxIOBPS=2)
    with contextlib.suppress(grpc.RpcError):  # it has failed by then, where it has no disk
        client.stub.StopJob(client.pb.StopJobReq(id=job.id))
    ended = client.status(job.id)
    assert ended.status == "STOPPED" or "no disk behind" in ended.reason, ended


def test_what_a_command_leaves_waiting_for_io_does_not_keep_the_job(
    client: Stock, server: Server, waiting: str
) -> None:
    (server.state / "jobs" / waiting / "work/go").touch()
    client.output(waiting)
    assert client.status(waiting).status == "COMPLETED"


def test_what_waits_for_io_does_not_outlive_its_monitor(client: Stock, server: Server, waiting: str) -> None:
    (monitor,) = server.monitors()
    os.kill(monitor, signal.SIGKILL)
    client.output(waiting)
    ended = client.status(waiting)
    assert (ended.status, ended.reason) == ("FAILED", "lost: its monitor was killed")
    assert processes_in(server, waiting) == []


def test_stop_ends_a_job_that_heeds_sigterm_at_once(client: Stock) -> None:
    job = client.started("sleep", "1000")
    stopped = client.stop(job.id)
    assert (stopped.status, stopped.exitCode) == ("STOPPED", -1)
    assert client.status(job.id).reason == "stopped by admin"


def test_stop_ends_a_job_that_ignores_sigterm_and_its_escaped_grandchildren(client: Stock, server: Server) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  if os.fork() == 0:\n"
        "    os.setsid(); print('ready', flush=True); time.sleep(1000)\n"
        "  os._exit(0)\n"
        "time.sleep(1000)"
    )
    job = client.started("python3", "-c", code)
    assert next(client.logs(job.id)) == b"ready\n"
    owner = (server.state / "jobs" / job.id / "work").stat().st_uid
    assert len(processes_of(owner)) == 3
    assert client.stop(job.id).status == "STOPPED"
    assert processes_of(owner) == []


def test_a_job_can_handle_sigterm_and_say_goodbye(client: Stock) -> None:
    job = client.started("bash", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done")
    lines = client.logs(job.id)
    assert next(lines) == b"ready\n"
    assert client.stop(job.id).status == "STOPPED"
    assert b"".join(lines).endswith(b"bye\n")


def test_grandchildren_end_with_the_command(client: Stock, server: Server) -> None:
    job = client.run("bash", "-c", "setsid sleep 1000 & exit 3")
    client.output(job.id)
    status = client.status(job.id)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", 3, "exit code 3")
    assert processes_of((server.state / "jobs" / job.id / "work").stat().st_uid) == []


@pytest.mark.alone
def test_a_job_that_writes_a_gigabyte_costs_the_server_nothing(client: Stock, server: Server) -> None:
    size = 1 << 30
    before = cpu_seconds(server.pid)
    job = client.started("head", "-c", str(size), "/dev/zero")
    log = server.state / "jobs" / job.id / "log"
    server.wait_for_line(re.compile(rf"job ended \| jobId={job.id} "))
    assert log.stat().st_size == size
    # launching, recording and the log lines; reading the output alone would take many times this
    assert cpu_seconds(server.pid) - before < 0.2
    status = client.status(job.id)
    assert status.status == "COMPLETED"
    log.unlink()

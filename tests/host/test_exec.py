"""ExecInJob with a stock client: another command in a running job."""

from __future__ import annotations

import json
import os
import queue
import re
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, Stock, memory_kb, poll_until


class Exec:
    """A call of ExecInJob whose input is given while it runs."""

    def __init__(self, stub: Any, pb: Any, job_id: str, command: str, *args: str, **fields: Any) -> None:
        self.pb = pb
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._messages.put(pb.ExecInput(id=job_id, command=command, args=args, **fields))
        self.call = stub.ExecInJob(iter(self._messages.get, None))
        self.out = self.err = b""
        self.code: int | None = None
        self.reason = ""

    def send(self, **fields: Any) -> None:
        self._messages.put(self.pb.ExecInput(**fields))

    def step(self) -> bool:
        """Take the next message; False at the end."""
        message = next(self.call, None)
        if message is None:
            return False
        if message.HasField("exitCode"):
            self.code, self.reason = message.exitCode, message.reason
        elif message.stream == self.pb.STDOUT:
            self.out += message.payload
        else:
            assert message.stream == self.pb.STDERR
            self.err += message.payload
        return True

    def until(self, text: bytes) -> None:
        while text not in self.out:
            assert self.step(), self.out

    def finish(self) -> tuple[int | None, bytes, bytes]:
        while self.step():
            pass
        self._messages.put(None)
        return self.code, self.out, self.err


class Executing:
    def __init__(self, server: Server, channel: grpc.Channel, messages: ModuleType, stubs: ModuleType) -> None:
        self.server = server
        self.stock = Stock(channel, messages, stubs)
        self.pb = messages
        self.stub = stubs.SessionServiceStub(channel)

    def begin(self, job_id: str, command: str, *args: str, **fields: Any) -> Exec:
        return Exec(self.stub, self.pb, job_id, command, *args, **fields)

    def run(self, job_id: str, command: str, *args: str, **fields: Any) -> tuple[int | None, bytes, bytes]:
        return self.begin(job_id, command, *args, **fields).finish()


@pytest.fixture
def executing(server: Server, stock: tuple[ModuleType, ModuleType]) -> Iterator[Executing]:
    with server.channel() as channel:
        yield Executing(server, channel, *stock)


@pytest.fixture
def job(executing: Executing) -> Iterator[str]:
    """A job that does nothing until it is stopped."""
    job_id = executing.stock.started("sleep", "1000").id
    yield job_id
    if executing.stock.status(job_id).status == "RUNNING":
        executing.stock.stop(job_id)


def test_output_comes_by_its_stream_and_the_exit_code_last(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert begun.finish() == (3, b"out\n", b"err\n")
    assert begun.reason == "exit code 3"
    assert executing.stock.status(job).status == "RUNNING"


VIEW = """
import json, os, sys
def look(pid):
    status = dict(line.split(":\\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\\t" in line)
    kept = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask")
    return {
        **{name: status[name] for name in kept},
        "namespaces": {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in sorted(os.listdir(f"/proc/{pid}/ns"))},
        "limits": open(f"/proc/{pid}/limits").read(),
        "groups": open(f"/proc/{pid}/cgroup").read(),
        "mounts": open(f"/proc/{pid}/mountinfo").read(),
        "root": os.readlink(f"/proc/{pid}/root"),
        "badness": open(f"/proc/{pid}/oom_score_adj").read(),
        "signals": [status["SigBlk"], status["SigIgn"]] if pid != "self" else ["0" * 16, "0" * 16],
    }
names = {pid: open(f"/proc/{pid}/comm").read().strip() for pid in os.listdir("/proc") if pid.isdigit()}
(main,) = (pid for pid, name in names.items() if name == "sleep")
own, others = look("self"), look(main)
fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in sorted(os.listdir("/proc/self/fd"))[:3]}
print(json.dumps([own, others, len(os.listdir("/proc/self/fd")), fds]))
os.kill(int(main), 0)
"""


def test_it_has_all_that_the_jobs_own_command_has_and_no_more(executing: Executing, job: str) -> None:
    code, out, err = executing.run(job, "python3", "-c", VIEW)
    assert (code, err) == (0, b"")
    own, main, count, fds = json.loads(out)
    assert own == main
    assert own["Uid"].split() == ["0"] * 4
    assert own["CapEff"] == own["CapBnd"] == "0" * 16
    assert (own["NoNewPrivs"], own["Seccomp"]) == ("1", "2")
    assert count == 4  # with that of the listing itself
    assert fds["0"] == "/dev/null"


def host_pids(text: str) -> list[int]:
    """Processes of the host with exactly this last argument."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().endswith(f"\0{text}\0".encode()):
                found.append(int(entry.name))
    return found


def test_it_is_in_the_jobs_groups_before_it_runs(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "echo on; exec sleep 4711001")
    begun.until(b"on\n")
    poll_until(lambda: bool(host_pids("4711001")))
    (pid,) = host_pids("4711001")
    shim = int(re.findall(r"pid=(\d+)", (executing.server.state / f"jobs/{job}/monitor").read_text())[0])
    (init,) = map(int, Path(f"/proc/{shim}/task/{shim}/children").read_text().split())
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{init}/cgroup").read_text()
    assert f"/{job}" in Path(f"/proc/{pid}/cgroup").read_text()
    begun.call.cancel()


def test_memory_counts_with_the_jobs(executing: Executing) -> None:
    job = executing.stock.started("sleep", "1000", maxMemory=64)
    code, _, _ = executing.run(job.id, "python3", "-c", "x = bytearray(200 << 20)")
    assert code == 137
    executing.stock.output(job.id)
    ended = executing.stock.status(job.id)
    assert (ended.status, ended.exitCode, ended.reason) == ("FAILED", 137, "out of memory")


def test_processes_count_with_the_jobs(executing: Executing) -> None:
    job = executing.stock.started("sleep", "1000", maxProcesses=6)
    fork = "import os, time\nfor n in range(9): os.fork() or time.sleep(1000)"
    code, _, err = executing.run(job.id, "python3", "-c", fork)
    assert code == 1
    assert b"BlockingIOError" in err
    executing.stock.stop(job.id)


def test_there_is_no_room_for_it_in_a_full_job(executing: Executing) -> None:
    job = executing.stock.started("sh", "-c", "sleep 1000 & sleep 1000 & wait", maxProcesses=4)
    begun = executing.begin(job.id, "true")
    assert begun.finish() == (126, b"", b"")
    assert begun.reason == "cannot execute another process: resource temporarily unavailable"
    executing.stock.stop(job.id)


def test_it_ends_with_the_job_and_does_not_keep_it(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "trap '' TERM HUP; echo on; while :; do sleep 4711002; done")
    begun.until(b"on\n")
    ended = executing.stock.stop(job)
    assert ended.status == "STOPPED"
    assert begun.finish()[0] == 137
    assert begun.reason == "the job has ended"
    assert host_pids("4711002") == []


def test_a_client_that_goes_ends_it_politely(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "trap 'echo hup > /work/hup; exit' HUP; echo on; sleep 4711003 & wait")
    begun.until(b"on\n")
    begun.call.cancel()
    poll_until(lambda: executing.run(job, "cat", "/work/hup")[:2] == (0, b"hup\n"))
    poll_until(lambda: not host_pids("4711003"))


def test_and_one_that_does_not_listen_is_killed_with_its_group(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "trap '' HUP; echo on; sleep 4711004; echo off")
    begun.until(b"on\n")
    begun.call.cancel()
    poll_until(lambda: not host_pids("4711004"))
    assert executing.stock.status(job).status == "RUNNING"


def test_what_it_leaves_behind_stays_with_the_job(executing: Executing, job: str) -> None:
    code, out, _ = executing.run(job, "sh", "-c", "sleep 4711005 & echo done")
    assert (code, out) == (0, b"done\n")  # though that has its output open
    assert len(host_pids("4711005")) == 1
    executing.stock.stop(job)
    assert host_pids("4711005") == []


def test_output_does_not_go_to_the_jobs_log(executing: Executing) -> None:
    job = executing.stock.started("sh", "-c", "echo before; until [ -e go ]; do sleep 0.05; done; echo after")
    assert executing.run(job.id, "sh", "-c", "echo between; echo >go")[:2] == (0, b"between\n")
    assert executing.stock.output(job.id) == b"before\nafter\n"


def test_a_reader_that_stalls_stalls_the_command(executing: Executing, job: str) -> None:
    before = memory_kb(executing.server.pid)
    begun = executing.begin(job, "sh", "-c", "exec dd if=/dev/zero bs=1M count=4000")
    begun.step()
    (pid,) = (pid for pid in host_pids("count=4000") if "dd" in Path(f"/proc/{pid}/comm").read_text())
    poll_until(lambda: "pipe" in Path(f"/proc/{pid}/wchan").read_text() and _is_still(pid))
    assert memory_kb(executing.server.pid) - before < 64 << 10
    begun.call.cancel()
    poll_until(lambda: not host_pids("count=4000"))


def _is_still(pid: int) -> bool:
    """Nothing was written for a while."""

    def written() -> str:
        return Path(f"/proc/{pid}/io").read_text()

    before = written()
    return not select.select([], [], [], 0.3)[0] and written() == before


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"command": ""}, "INVALID_ARGUMENT", "invalid command: command cannot be empty"),
        ({"command": "a;b"}, "INVALID_ARGUMENT", "invalid command: command contains dangerous characters"),
        ({"args": ["\0"]}, "INVALID_ARGUMENT", r"invalid argument: args\[0\] contains a NUL byte"),
        ({"environment": {"A-B": ""}}, "INVALID_ARGUMENT", "invalid environment: 'A-B' is no name of a variable"),
        ({"environment": {"JOBLET_X": ""}}, "INVALID_ARGUMENT", "invalid environment: JOBLET_X begins with JOBLET_"),
        ({"workdir": "../x"}, "INVALID_ARGUMENT", "invalid workdir: '../x' is not a plain relative path"),
        ({"terminal": (0, 80, "")}, "INVALID_ARGUMENT", r"invalid terminal: 0 rows \(allowed 1 to 65535\)"),
        ({"terminal": (24, 80, "a\nb")}, "INVALID_ARGUMENT", "invalid terminal: 'a.nb' is no kind"),
        ({"content": b"x"}, "INVALID_ARGUMENT", "content for a command that was asked for without stdin"),
        ({"id": "999999"}, "NOT_FOUND", "job not found: 999999"),
        ({"id": ""}, "NOT_FOUND", "job not found: "),
    ],
)
def test_what_cannot_be_asked_for(
    executing: Executing, job: str, fields: dict[str, Any], code: str, message: str
) -> None:
    if "terminal" in fields:
        rows, columns, term = fields["terminal"]
        fields = {"terminal": executing.pb.Terminal(rows=rows, columns=columns, term=term)}
    asked = {"id": job, "command": "sleep", "args": ["1000"], **fields}
    with pytest.raises(grpc.RpcError) as error:
        Exec(executing.stub, executing.pb, asked.pop("id"), asked.pop("command"), *asked.pop("args"), **asked).finish()
    assert error.value.code().name == code
    assert re.match(message, error.value.details())


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("no-such-command", 127, "command not found: no-such-command"),
        ("/etc/passwd", 126, "cannot execute /etc/passwd: permission denied"),
    ],
)
def test_what_cannot_be_run_ends_as_for_a_job(
    executing: Executing, job: str, command: str, code: int, reason: str
) -> None:
    begun = executing.begin(job, command)
    assert begun.finish() == (code, b"", b"")
    assert begun.reason == reason
    begun = executing.begin(job, "true", workdir="nowhere")
    assert begun.finish() == (127, b"", b"")
    assert begun.reason == "cannot enter /work/nowhere: no such file or directory"


def test_a_job_that_does_not_run_takes_none(executing: Executing) -> None:
    ended, _ = executing.stock.finish("true")
    with pytest.raises(grpc.RpcError) as error:
        executing.run(ended.id, "true")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == f"job is not running: {ended.id} (current status: COMPLETED)"


def test_a_job_of_an_older_joblet_takes_none(executing: Executing, job: str) -> None:
    (executing.server.state / f"jobs/{job}/exec").unlink()
    with pytest.raises(grpc.RpcError) as error:
        executing.run(job, "true")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == (
        f"cannot run another command in job {job}: it was started by a joblet that could not do this yet"
    )


def test_the_log_says_who_has_run_what_and_no_values(executing: Executing, job: str) -> None:
    executing.run(job, "echo", "plain", environment={"TOKEN": "not-to-be-seen"})
    line = executing.server.wait_for_line(re.compile(rf"command in job started \| jobId={job} command=.echo plain."))
    assert "by=admin" in line.string
    executing.server.wait_for_line(re.compile(rf"command in job ended \| jobId={job} exitCode=0"))
    assert not any("not-to-be-seen" in each for each in executing.server.lines)


def test_a_job_that_is_about_to_run_is_waited_for(executing: Executing) -> None:
    job = executing.stock.run("sleep", "1000")
    assert executing.run(job.id, "echo", "on")[:2] == (0, b"on\n")
    executing.stock.stop(job.id)


def test_a_viewer_may_not(executing: Executing, stock: tuple[ModuleType, ModuleType], job: str) -> None:
    with executing.server.channel("viewer") as channel, pytest.raises(grpc.RpcError) as error:
        Executing(executing.server, channel, *stock).run(job, "true")
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "role viewer is not allowed to perform operation exec_in_job"


def test_a_job_takes_sixteen_at_a_time(executing: Executing, job: str) -> None:
    begun = [executing.begin(job, "sh", "-c", "echo on; sleep 1000") for _ in range(16)]
    for each in begun:
        each.until(b"on\n")
    with pytest.raises(grpc.RpcError) as error:
        executing.run(job, "true")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.value.details() == f"16 other commands run in job {job} (at most 16)"
    for each in begun:
        each.call.cancel()


def test_a_terminal_is_the_sessions_own(executing: Executing, job: str) -> None:
    terminal = executing.pb.Terminal(rows=30, columns=100, term="vt100")
    keys = executing.begin(job, "sh", stdin=True, terminal=terminal, environment={"PS1": "ready> "})
    keys.send(content=b"echo $TERM; tty; stty size; ps -o tty= -p $$\n")
    keys.until(b"vt100\r\n/dev/pts/0\r\n30 100\r\npts/0\r\nready> ")
    keys.send(size=executing.pb.Terminal(rows=40, columns=120))
    keys.send(content=b"stty size; cat\n")
    keys.until(b"40 120\r\n")
    keys.send(content=b"typed to cat\n")
    keys.until(b"typed to cat\r\ntyped to cat\r\n")
    keys.send(content=b"\x03")
    keys.until(b"^C\r\nready> ")
    keys.send(content=b"echo still >/dev/tty; (exit 9)\n")
    keys.until(b"still\r\nready> ")
    keys.send(end=True)
    assert keys.finish()[0] == 9


WATCH = """
import os, sys
own, seen, bad = os.getpid(), set(), []
before = {pid for pid in os.listdir("/proc") if pid.isdigit()}
print("watching", flush=True)
while not os.path.exists("/work/enough"):
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in before:
            continue
        seen.add(pid)
        try:
            exe = os.readlink(f"/proc/{pid}/exe")
            if "joblet" in exe:
                bad.append(["exe", exe])
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if not target.startswith(("pipe:", "/dev/null", "/usr/", "/lib", "/etc/", "/bin")):
                    bad.append(["fd", target])
            where = os.readlink(f"/proc/{pid}/cwd"), os.readlink(f"/proc/{pid}/root")
            if where != ("/work", "/"):
                bad.append(["cwd, root", where])
        except OSError:
            pass
    for pid in range(own + 1, own + 400):
        try:
            os.kill(pid, 19)
            os.kill(pid, 18)
        except OSError:
            pass
print(len(seen), bad)
"""


def test_a_job_that_lies_in_wait_for_newcomers_gets_nothing_of_the_host(executing: Executing) -> None:
    job = executing.stock.started("python3", "-c", WATCH).id
    logs = executing.stock.logs(job)
    assert next(logs) == b"watching\n"
    for _ in range(60):
        assert executing.run(job, "true")[0] == 0
    assert executing.run(job, "touch", "/work/enough")[0] in (0, 137)  # the job may be first to end
    seen, bad = b"".join(logs).split(b" ", 1)
    assert int(seen) > 0
    assert bad == b"[]\n"


def test_many_leave_nothing_behind(executing: Executing, job: str) -> None:
    shim = int(re.findall(r"pid=(\d+)", (executing.server.state / f"jobs/{job}/monitor").read_text())[0])
    (init,) = map(int, Path(f"/proc/{shim}/task/{shim}/children").read_text().split())

    def held() -> tuple[int, ...]:
        processes = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return (*(len(os.listdir(f"/proc/{pid}/fd")) for pid in (executing.server.pid, init)), len(processes))

    before = held()
    for number in range(100):
        executing.run(job, "sh", "-c", f"exit {number % 3}", stdin=number % 2 == 1)
    poll_until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


def test_a_killed_server_ends_it_and_the_next_one_can_do_it_again(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]
) -> None:
    server = make_server().start()
    with server.channel() as channel:
        first = Executing(server, channel, *stock)
        job = first.stock.started("sleep", "4711006").id
        begun = first.begin(job, "sh", "-c", "trap '' HUP; echo on; sleep 4711007; echo off")
        begun.until(b"on\n")
        server.kill()
    poll_until(lambda: not host_pids("4711007"))
    server.start()
    with server.channel() as channel:
        second = Executing(server, channel, *stock)
        assert second.run(job, "sh", "-c", "exit 5")[0] == 5
        begun = second.begin(job, "sh", "-c", "echo on; sleep 4711008")
        begun.until(b"on\n")
        server.stop()
        with pytest.raises(grpc.RpcError) as error:
            begun.finish()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert host_pids("4711008") == []
    assert len(host_pids("4711006")) == 1


def test_a_paused_job_takes_none_and_one_under_way_waits(executing: Executing, job: str) -> None:
    begun = executing.begin(job, "sh", "-c", "echo on; read line; exit 3", stdin=True)
    begun.until(b"on\n")
    executing.stock.stub.PauseJob(executing.pb.PauseJobReq(id=job))
    with pytest.raises(grpc.RpcError) as error:
        executing.run(job, "true")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == f"cannot run another command in job {job}: it is paused by admin"
    begun.send(content=b"line\n")
    executing.stock.stub.ResumeJob(executing.pb.ResumeJobReq(id=job))
    assert begun.finish()[0] == 3
    assert executing.run(job, "true")[0] == 0

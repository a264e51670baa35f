"""Pausing and resuming jobs, on control groups of either version."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from harness import Server, Stock, poll_until, processes_of

from joblet.client import ClientConfig, FailedPrecondition, sync

COUNTS = "n=0; while :; do n=$((n+1)); echo $n > count; sleep 0.005; done"
"""forks all the time"""


@pytest.fixture(scope="module")
def pausing(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Server]:
    """A server of this file's own; grace is short."""
    made = Server(tmp_path_factory.mktemp("server"), certificates, joblet={"cleanupTimeout": "2s"})
    made.start()
    yield made
    made.close()


@pytest.fixture
def stocked(pausing: Server, stock) -> Iterator[Stock]:
    with pausing.channel() as channel:
        yield Stock(channel, *stock)


def pause(client: Stock, job_id: str) -> object:
    return client.stub.PauseJob(client.pb.PauseJobReq(id=job_id))


def resume(client: Stock, job_id: str) -> object:
    return client.stub.ResumeJob(client.pb.ResumeJobReq(id=job_id))


def folder_of(server: Server, job_id: str) -> Path:
    return server.state / "jobs" / job_id


def count_of(server: Server, job_id: str) -> str:
    return (folder_of(server, job_id) / "work/count").read_text()


def counting(client: Stock, server: Server, **order: int) -> str:
    """The id of a job that counts already."""
    job_id = str(client.started("bash", "-c", COUNTS, **order).id)
    poll_until((folder_of(server, job_id) / "work/count").exists)
    return job_id


def stands_still(server: Server, job_id: str) -> bool:
    before = count_of(server, job_id)
    time.sleep(0.1)  # in which it would have counted on
    return count_of(server, job_id) == before


def goes_on(server: Server, job_id: str) -> None:
    before = count_of(server, job_id)
    poll_until(lambda: count_of(server, job_id) != before)


def groups_of(server: Server, job_id: str) -> list[Path]:
    instance = (server.state / "instance").read_text().strip()
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(f"/{instance}/{job_id}")]


def set_frozen(server: Server, job_id: str, frozen: bool) -> None:
    """As the kernel has it."""
    for group in groups_of(server, job_id):
        if (group / "freezer.state").exists():
            (group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        elif (group / "cgroup.freeze").exists():
            (group / "cgroup.freeze").write_text(str(int(frozen)))


def record(server: Server, job_id: str, paused_by: str) -> None:
    with closing(sqlite3.connect(server.state / "joblet.db")) as database, database:
        database.execute("UPDATE jobs SET paused_by = ? WHERE id = ?", (paused_by, int(job_id)))


def test_a_paused_job_stands_still_until_it_is_resumed(stocked: Stock, pausing: Server) -> None:
    job_id = counting(stocked, pausing)
    paused = pause(stocked, job_id)
    assert (paused.status, paused.pausedBy, paused.reason) == ("RUNNING", "admin", "paused by admin")
    assert stands_still(pausing, job_id)
    assert pause(stocked, job_id) == paused
    assert stocked.status(job_id) == paused
    (listed,) = [job for job in stocked.list() if job.id == job_id]
    assert (listed.pausedBy, listed.reason) == ("admin", "paused by admin")
    resumed = resume(stocked, job_id)
    assert (resumed.status, resumed.pausedBy, resumed.reason) == ("RUNNING", "", "")
    goes_on(pausing, job_id)
    assert resume(stocked, job_id) == resumed
    pause(stocked, job_id)
    assert stands_still(pausing, job_id)
    resume(stocked, job_id)
    goes_on(pausing, job_id)
    stocked.stop(job_id)
    assert groups_of(pausing, job_id) == []


def test_every_process_of_a_job_that_forks_stands_still(stocked: Stock, pausing: Server) -> None:
    forks = "for i in $(seq 20); do (while :; do (:); done) & done; echo > count; wait"
    job_id = str(stocked.started("bash", "-c", forks, maxCPU=100).id)
    poll_until((folder_of(pausing, job_id) / "work/count").exists)
    pause(stocked, job_id)
    owner = (folder_of(pausing, job_id) / "work").stat().st_uid

    def used() -> dict[int, str]:
        fields = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes_of(owner)}
        return {pid: " ".join(values[11:13]) for pid, values in fields.items()}

    before = used()
    assert len(before) > 20
    time.sleep(0.2)  # in which they would have forked, ended and used time
    assert used() == before
    assert stocked.stop(job_id).status == "STOPPED"
    assert processes_of(owner) == []
    assert groups_of(pausing, job_id) == []


@pytest.mark.parametrize("wish", [{}, {"signal": "INT", "graceMs": 600_000}, {"graceMs": 0}])
def test_a_paused_job_that_is_stopped_goes_on_to_its_end(
    stocked: Stock, pausing: Server, wish: dict[str, object]
) -> None:
    code = "trap 'echo told; exit 0' TERM INT; " + COUNTS
    job_id = str(stocked.started("bash", "-c", code).id)
    poll_until((folder_of(pausing, job_id) / "work/count").exists)
    pause(stocked, job_id)
    assert stocked.stub.StopJob(stocked.pb.StopJobReq(id=job_id, **wish)).status == "STOPPED"
    job = stocked.status(job_id)
    assert (job.pausedBy, job.reason) == ("", "stopped by admin")
    output = stocked.output(job_id)  # a shell tells of its child that got the signal, too, if there was one just then
    assert output == b"" if wish.get("graceMs") == 0 else output.endswith(b"told\n")
    assert groups_of(pausing, job_id) == []


def test_the_timeout_of_a_paused_job_goes_on(stocked: Stock, pausing: Server) -> None:
    job_id = counting(stocked, pausing)
    pause(stocked, job_id)
    stocked.stub.SetJobTimeout(stocked.pb.SetJobTimeoutReq(id=job_id, timeoutMs=1))
    assert stocked.output(job_id) in (b"", b"Terminated\n")  # of the shell's child, if there was one just then
    job = stocked.status(job_id)
    assert (job.status, job.reason, job.pausedBy) == ("STOPPED", "timeout after 1ms", "")


def test_only_a_job_that_runs_can_be_paused(stocked: Stock, pausing: Server, stock) -> None:
    job, _ = stocked.finish("true")
    for call in (pause, resume):
        with pytest.raises(
            grpc.RpcError, match=rf"job is not running: {job.id} \(current status: COMPLETED\)"
        ) as caught:
            call(stocked, job.id)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.RpcError, match="job not found: 999999") as caught:
            call(stocked, "999999")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    denied = "role viewer is not allowed to perform operation pause_job"
    with pausing.channel("viewer") as channel, pytest.raises(grpc.RpcError, match=denied):
        pause(Stock(channel, *stock), job.id)


def test_a_paused_job_stays_paused_over_a_crash_of_the_server(make_server: Callable[..., Server], stock) -> None:
    """So do those of which only the record or only the kernel knows come to be one or the other."""
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        acknowledged, recorded, frozen = (counting(client, server) for _ in range(3))
        for job_id in (acknowledged, frozen):
            pause(client, job_id)
    server.kill()
    record(server, recorded, "bob")
    record(server, frozen, "")
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for job_id, paused_by in ((acknowledged, "admin"), (recorded, ""), (frozen, "")):
            assert client.status(job_id).pausedBy == paused_by
        assert stands_still(server, acknowledged)
        goes_on(server, recorded)
        goes_on(server, frozen)
        resume(client, acknowledged)
        goes_on(server, acknowledged)
        for job_id in (acknowledged, recorded, frozen):
            client.stop(job_id)
        assert [groups_of(server, job_id) for job_id in (acknowledged, recorded, frozen)] == [[], [], []]


def test_a_stop_of_a_paused_job_that_a_crash_cut_short_is_taken_up(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job_id = counting(client, server)
        pause(client, job_id)
    server.kill()
    with closing(sqlite3.connect(server.state / "joblet.db")) as database, database:
        database.execute("UPDATE jobs SET stop_reason = 'stopped by bob' WHERE id = ?", (int(job_id),))
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(job_id) in (b"", b"Terminated\n")
        assert (client.status(job_id).status, client.status(job_id).reason) == ("STOPPED", "stopped by bob")
    assert groups_of(server, job_id) == []


@pytest.mark.parametrize("served", [True, False])
def test_of_a_paused_job_whose_monitor_is_killed_nothing_is_left(
    make_server: Callable[..., Server], stock, served: bool
) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job_id = counting(client, server)
        owner = (folder_of(server, job_id) / "work").stat().st_uid
        pause(client, job_id)
    if not served:
        server.kill()
    (monitor,) = server.monitors()
    os.kill(monitor, signal.SIGKILL)
    if not served:
        server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(job_id) == b""
        job = client.status(job_id)
    assert (job.status, job.reason, job.pausedBy) == ("FAILED", "lost: its monitor was killed", "")
    poll_until(lambda: processes_of(owner) == [])
    assert groups_of(server, job_id) == []


def test_rnx_and_the_client_pause_and_resume(stocked: Stock, pausing: Server) -> None:
    job_id = counting(stocked, pausing)
    result = pausing.rnx("pause", job_id, "999999")
    assert (result.returncode, result.stderr) == (1, "Error: job not found: 999999\n")
    assert result.stdout == f"Job paused:\nID: {job_id}\nStatus: RUNNING\nPausedBy: admin\n"
    why = pausing.rnx("why", job_id).stdout
    assert why.startswith(f"Job {job_id} RUNNING: paused by admin\n")
    assert f"rnx resume {job_id}" in why
    shown = pausing.rnx("status", "-v", job_id).stdout
    assert "Reason: paused by admin\n" in shown
    assert "PausedBy: admin\n" in shown
    assert pausing.rnx("list", "--format", "{id} {pausedBy}", "--limit=1").stdout == f"{job_id} admin\n"
    result = pausing.rnx("resume", job_id)
    assert result.stdout == f"Job resumed:\nID: {job_id}\nStatus: RUNNING\n"
    goes_on(pausing, job_id)
    folder = pausing.certificates
    config = ClientConfig(
        server=f"localhost:{pausing.port}",
        cert=str(folder / "admin-cert.pem"),
        key=str(folder / "admin-key.pem"),
        ca=str(folder / "ca-cert.pem"),
    )
    with sync.Client(config) as client:
        assert client.pause(job_id).paused_by == "admin"
        assert client.resume(job_id).paused_by == ""
        client.stop(job_id)
        with pytest.raises(FailedPrecondition, match="is not running"):
            client.pause(job_id)

"""A job's directory is damaged between two servers: that job alone is told to be, and nothing of it runs on unseen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from harness import Stock, poll_until, processes_of

Damage = Callable[[Path], object]


def garbage(name: str) -> Damage:
    return lambda directory: (directory / name).write_bytes(b"\xff\0=\nversion=9\nend=1")


def no(name: str) -> Damage:
    return lambda directory: shutil.rmtree(directory / name) if name == "work" else (directory / name).unlink()


def another_lock(directory: Path) -> None:
    (directory / "lock").unlink()
    (directory / "lock").touch()


RUNNING: dict[str, tuple[Damage, str]] = {
    "monitor file garbage": (garbage("monitor"), "lost: pid is '', not a number"),
    "monitor file empty": (lambda directory: (directory / "monitor").write_bytes(b""), "lost: pid is '', not a number"),
    "monitor file missing": (no("monitor"), "lost: its monitor cannot be found"),
    "monitor file of another": (
        lambda directory: (directory / "monitor").write_text("pid=1\nstart=1\nboot=x\n"),
        "lost: its monitor cannot be found",
    ),
    "started file garbage": (garbage("started"), "lost: at is '', not a number"),
    "lock missing": (no("lock"), "lost: its lock is missing"),
    "another lock": (another_lock, "lost: its lock is missing"),
    "work missing": (no("work"), "lost: its work directory is missing"),
    "directory missing": (shutil.rmtree, "lost: its directory is missing"),
}
"""what is done to a running job's directory, and what is then said of the job"""

HARMLESS: dict[str, Damage] = {
    "log missing": no("log"),
    "exit record garbage": garbage("exit"),  # its monitor writes another
}


def test_a_running_job_that_cannot_be_followed_is_ended_and_told(make_server, stock) -> None:
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    owners: dict[str, int] = {}
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = {name: client.started("sleep", "1000").id for name in (*RUNNING, *HARMLESS, "whole")}
        for name, job_id in jobs.items():
            owners[name] = (server.state / "jobs" / job_id / "work").stat().st_uid
        server.kill()
    for name, (damage, _) in RUNNING.items():
        damage(server.state / "jobs" / jobs[name])
    for name, damage in HARMLESS.items():
        damage(server.state / "jobs" / jobs[name])
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for name, (_, reason) in RUNNING.items():
            poll_until(lambda job_id=jobs[name]: client.status(job_id).status != "RUNNING")
            status = client.status(jobs[name])
            assert (name, status.status, status.exitCode, status.reason) == (name, "FAILED", -1, reason)
            poll_until(lambda owner=owners[name]: processes_of(owner) == [])
        for name in (*HARMLESS, "whole"):
            assert (name, client.status(jobs[name]).status) == (name, "RUNNING")
            assert client.stop(jobs[name]).status == "STOPPED"
        assert client.finish("echo", "on")[1] == b"on\n"
    assert server.monitors() == []


ENDED: dict[str, Damage] = {
    "exit record garbage": garbage("exit"),
    "monitor file garbage": garbage("monitor"),
    "lock missing": no("lock"),
    "work missing": no("work"),
    "log missing": no("log"),
    "directory missing": shutil.rmtree,
}


def test_an_ended_job_stays_what_it_is_and_a_missing_log_is_said_to_be(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = {name: client.finish("echo", "said")[0].id for name in (*ENDED, "whole")}
        assert client.finish("/no/such/program")[1] == b"joblet: command not found: /no/such/program\n"
        server.stop()
    for name, damage in ENDED.items():
        damage(server.state / "jobs" / jobs[name])
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for name, job_id in jobs.items():
            assert (name, client.status(job_id).status) == (name, "COMPLETED")
            if name not in ("log missing", "directory missing"):
                assert client.output(job_id) == b"said\n"
                continue
            with pytest.raises(grpc.RpcError) as caught:
                client.output(job_id)
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
            assert caught.value.details() == f"the log of job {job_id} is missing on the server"
        delete = stock[1].JobServiceStub(channel).DeleteJob
        for job_id in jobs.values():
            assert delete(client.pb.DeleteJobReq(id=job_id)).success
        assert client.finish("echo", "on")[1] == b"on\n"
        assert [name for name in os.listdir(server.state / "jobs") if name in jobs.values()] == []


ENDED_UNSEEN: dict[str, tuple[Damage, str]] = {
    "exit record garbage": (garbage("exit"), "lost: exit record of another version, or incomplete"),
    "exit record cut": (
        lambda directory: os.truncate(directory / "exit", 40),
        "lost: exit record of another version, or incomplete",
    ),
    "exit record missing": (no("exit"), "lost: its monitor was killed"),
    "directory missing": (shutil.rmtree, "lost: nothing of it was found"),
}
"""done to the directory of a job that ended while no server ran"""


def test_a_job_whose_end_cannot_be_read_is_told_to_be_lost(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = {name: client.started("sh", "-c", "exec sleep 1").id for name in (*ENDED_UNSEEN, "whole")}
        server.kill()
    poll_until(lambda: not server.monitors())
    for name, (damage, _) in ENDED_UNSEEN.items():
        damage(server.state / "jobs" / jobs[name])
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for name, (_, reason) in ENDED_UNSEEN.items():
            poll_until(lambda job_id=jobs[name]: client.status(job_id).status != "RUNNING")
            status = client.status(jobs[name])
            assert (name, status.status, status.exitCode, status.reason) == (name, "FAILED", -1, reason)
        assert client.status(jobs["whole"]).status == "COMPLETED"

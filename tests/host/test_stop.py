"""Stopping a job by another signal, with another grace, once more, and over a crash of the server."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from harness import PATIENCE, Server, Stock
from held_up import holding_up

from joblet.client import Client, ClientConfig, sync

TELLS = (
    "import os, signal, sys\n"
    "def on(number, then): signal.signal(number, lambda *_: (os.write(1, b'%d\\n' % number), then()))\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): on(number, lambda: None)\n"
    "{then}\nos.write(1, b'ready\\n')\nwhile True: signal.pause()"
)
ENDS_AT_INT = TELLS.format(then="on(signal.SIGINT, lambda: os._exit(0))")
NEVER_ENDS = TELLS.format(then="")


def ready(client: Stock, code: str) -> str:
    """The id of a job that has set its handlers up."""
    job = client.started("python3", "-c", code)
    log = client.logs(job.id)
    assert next(log) == b"ready\n"
    return str(job.id)


def stop(client: Stock, job_id: str, **wish: object) -> object:
    return client.stub.StopJob(client.pb.StopJobReq(id=job_id, **wish))


@pytest.mark.parametrize("name", ["INT", "SIGINT", "sigint", "2"])
def test_a_job_is_stopped_by_the_signal_that_was_asked_for(client: Stock, name: str) -> None:
    job_id = ready(client, ENDS_AT_INT)
    answer = stop(client, job_id, signal=name, graceMs=600_000)
    assert (answer.status, answer.exitCode) == ("STOPPED", -1)
    assert client.output(job_id) == b"ready\n2\n"
    assert client.status(job_id).reason == "stopped by admin"


@pytest.mark.parametrize("wish", [{"graceMs": 0}, {"signal": "KILL"}, {"signal": "9", "graceMs": 600_000}])
def test_without_a_grace_it_is_killed_at_once(client: Stock, wish: dict[str, object]) -> None:
    job_id = ready(client, NEVER_ENDS)
    assert stop(client, job_id, **wish).status == "STOPPED"
    assert client.output(job_id) == b"ready\n"


def test_another_stop_hastens_the_one_under_way(client: Stock, server: Server) -> None:
    job_id = ready(client, NEVER_ENDS)
    answers: list[object] = []
    first = threading.Thread(target=lambda: answers.append(stop(client, job_id, signal="HUP", graceMs=3_600_000)))
    first.start()
    log = client.logs(job_id, offset=len("ready\n"))
    assert next(log) == b"1\n"
    began = time.monotonic()
    assert stop(client, job_id, signal="INT", graceMs=100).status == "STOPPED"
    assert time.monotonic() - began < 30
    first.join()
    assert answers[0].status == "STOPPED"
    assert b"".join(log) == b"2\n"


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"signal": "STOP"}, r"invalid signal: 'STOP' \(allowed TERM, INT, .*there is PauseJob\)"),
        ({"signal": "SIGCONT"}, r"invalid signal: 'SIGCONT' \(allowed TERM"),
        ({"signal": "19"}, r"invalid signal: '19'"),
        ({"signal": "0"}, r"invalid signal: '0'"),
        ({"signal": "-9"}, r"invalid signal: '-9'"),
        ({"signal": "²"}, r"invalid signal: "),
        ({"graceMs": -1}, r"invalid graceMs: -1 ms \(allowed 0 to 2147483647\)"),
        ({"graceMs": 2**31}, r"invalid graceMs: 2147483648 ms"),
    ],
)
def test_a_wish_that_cannot_be_met(client: Stock, wish: dict[str, object], text: str) -> None:
    with pytest.raises(grpc.RpcError, match=text) as caught:
        stop(client, "1", **wish)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_rnx_stops_several_at_once(client: Stock, server: Server) -> None:
    jobs = [ready(client, ENDS_AT_INT) for _ in range(2)]
    result = server.rnx("stop", "--signal=INT", "--grace=10m", jobs[0], "999999", jobs[1])
    assert result.returncode == 1
    assert [line for line in result.stdout.splitlines() if line.startswith("ID: ")] == [f"ID: {job}" for job in jobs]
    assert result.stderr == "Error: job not found: 999999\n"
    bad = server.rnx("stop", "--grace=soon", jobs[0])
    assert bad.returncode == 2


def test_the_client_stops_a_job_as_asked(server: Server) -> None:
    folder = server.certificates
    config = ClientConfig(
        server=f"localhost:{server.port}",
        cert=str(folder / "admin-cert.pem"),
        key=str(folder / "admin-key.pem"),
        ca=str(folder / "ca-cert.pem"),
    )
    with sync.Client(config) as client:
        job = client.run("sleep", "1000", wait_for_start=True)
        assert job.stop("HUP", grace=600).status == "STOPPED"
        assert client.stop(client.run("sleep", "1000", wait_for_start=True).id, grace=0).exit_code == -1
    assert Client.stop.__doc__ == sync.Client.stop.__doc__


def test_a_server_killed_before_the_signal_takes_the_stop_up_again(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job_id = ready(Stock(channel, *stock), ENDS_AT_INT)
    server.kill()
    with closing(sqlite3.connect(server.state / "joblet.db")) as database, database:
        wish = "stop_reason = 'stopped by bob', stop_signal = 2, stop_grace_ms = 600000"
        database.execute(f"UPDATE jobs SET {wish} WHERE id = ?", (int(job_id),))
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(job_id) == b"ready\n2\n"
        job = client.status(job_id)
    assert (job.status, job.reason) == ("STOPPED", "stopped by bob")
    assert (server.state / "jobs" / job_id / "stop").read_text() == "signal=2\ngrace_ms=600000\n"


def test_a_stop_under_way_is_not_begun_again_by_the_next_server(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job_id = ready(client, NEVER_ENDS)
        call = client.stub.StopJob.future(client.pb.StopJobReq(id=job_id, signal="INT", graceMs=600_000))
        assert next(client.logs(job_id, offset=len("ready\n"))) == b"2\n"
        server.kill()
        assert call.code() is grpc.StatusCode.UNAVAILABLE
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert stop(client, job_id, signal="HUP", graceMs=100).status == "STOPPED"
        assert client.output(job_id) == b"ready\n2\n1\n"


@pytest.fixture
def visible() -> Iterator[Path]:
    """A directory that jobs can be shown: each has a /tmp of its own."""
    with tempfile.TemporaryDirectory(dir="/srv", prefix="joblet-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("wish", [{}, {"graceMs": 0}])
def test_a_job_that_is_only_being_started_can_be_stopped(
    make_server: Callable[..., Server], stock, visible: Path, wish: dict[str, object]
) -> None:
    program = Path(shutil.copy("/bin/true", visible / "slow"))
    server = make_server(isolation={"readOnly": [str(program)]}).start()
    with holding_up(program) as wanted, server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.run(str(program))
        assert wanted(PATIENCE)
        assert client.status(job.id).status == "INITIALIZING"
        assert stop(client, job.id, **wish).status == "STOPPED"
        ended = client.status(job.id)
    assert (ended.exitCode, ended.reason) == (-1, "stopped by admin")
    assert server.monitors() == []


def test_a_stop_that_comes_before_its_shim_is_heeded(client: Stock) -> None:
    """However early it comes: as soon as the job is accepted, of several at once."""
    for _ in range(5):
        jobs = [client.run("sleep", "1000").id for _ in range(4)]
        assert {stop(client, job_id).status for job_id in jobs} == {"STOPPED"}

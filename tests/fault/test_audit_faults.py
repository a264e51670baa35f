"""The audit log of servers that are killed under load, and on a disk that is full."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, Stock, poll_until
from small_disk import SmallDisk, small_disk

from joblet.audit import files
from joblet.audit.query import Query, find
from joblet.audit.verify import verify_server

Stubs = tuple[ModuleType, ModuleType]


def lines(path: Path, **wanted: object) -> list[dict[str, Any]]:
    found = (values for _, values in find(files.every(path), Query()))
    return [line for line in found if all(line.get(key) == value for key, value in wanted.items())]


class Load:
    """Clients that ask as fast as they are answered, until the server is gone. Knows what was answered."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.reads: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, server: Server, stock: Stubs) -> None:
        with server.channel() as channel:
            client = Stock(channel, *stock)
            try:
                job = client.run("true").id
                with self._lock:
                    self.jobs.append(job)
                long = job.rjust(256, "9")
                while True:
                    with pytest.raises(grpc.RpcError) as told:
                        client.status(long)
                    if told.value.code() is not grpc.StatusCode.NOT_FOUND:
                        return
                    with self._lock:
                        self.reads[long] += 1
            except grpc.RpcError:
                return


def test_every_call_that_was_answered_is_there_when_the_server_is_killed(make_server, stock: Stubs) -> None:
    """And files are begun meanwhile."""
    server, load, chance = make_server(audit={"maxSize": 1, "keep": 0}), Load(), Random(9)
    path = server.state / "audit.log"
    for last in (False, True):
        server.start()
        with ThreadPoolExecutor(4) as clients:
            for _ in range(4):
                clients.submit(load.run, server, stock)
            time.sleep(chance.uniform(0.6, 1.2))  # at any instant
            if last:
                poll_until(lambda: bool(files.formers(path)))
            server.kill()
        verify_server(path, server.state)
    server.start()
    assert verify_server(path, server.state).files > 1
    assert not [line for line in lines(path, event="opened") if "fault" in line]
    told = {line["job"] for line in lines(path, event="result", operation="run_job", code="OK")}
    assert set(load.jobs) <= told
    reads = Counter(line["job"] for line in lines(path, operation="get_job", code="NOT_FOUND"))
    assert load.reads <= reads
    assert load.reads.total() > 100


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", tmp_path / "disk.img") as made:
        yield made


def until_refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Call again and again, whatever it is told, until the audit log takes no more."""
    for _ in range(20_000):
        try:
            call()
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return error.code(), error.details()
    raise AssertionError("it was never refused")


def test_on_a_full_disk_nothing_is_changed_that_is_not_told(disk: SmallDisk, make_server, stock: Stubs) -> None:
    path = disk.mount / "audit.log"
    server = make_server(audit={"file": str(path)})
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        endless = client.started("sleep", "1000").id
        disk.fill()
        reads = len(lines(path, operation="get_job"))
        refusal = until_refused(lambda: client.stub.SetJobTimeout(client.pb.SetJobTimeoutReq(id=endless, timeoutMs=0)))
        text = (
            "audit log cannot be written (No space left on device), so nothing was changed; stopping jobs is possible"
        )
        assert refusal == (grpc.StatusCode.UNAVAILABLE, text)
        with pytest.raises(grpc.RpcError, match="audit log cannot be written"):
            client.run("true")
        assert client.status(endless).status == "RUNNING"
        assert len(lines(path, operation="get_job")) == reads
        # what makes room has more room kept for it
        jobs = stock[1].JobServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="has not ended"):
            jobs.DeleteJob(client.pb.DeleteJobReq(id=endless))
        until_refused(lambda: jobs.DeleteJob(client.pb.DeleteJobReq(id=endless)))
        assert client.stop(endless).status == "STOPPED"
        assert not lines(path, operation="stop_job")
        assert verify_server(path, server.state).unfinished == 0
        disk.make_room()
        assert client.finish("echo", "after")[1] == b"after\n"
    server.stop()
    call, result = lines(path, operation="stop_job")
    assert (call["job"], result["code"]) == (endless, "OK")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", call["at"])
    (ended,) = lines(path, event="ended", job=endless)
    assert ended["status"] == "STOPPED"
    assert [line["job"] for line in lines(path, event="result", operation="run_job")] == ["1", "2"]
    verify_server(path, server.state)


def test_one_can_be_started_on_a_full_disk(disk: SmallDisk, make_server, stock: Stubs) -> None:
    path = disk.mount / "audit.log"
    server = make_server(audit={"file": str(path)})
    disk.fill()
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        with pytest.raises(grpc.RpcError, match="audit log cannot be written"):
            client.run("true")
        assert list(client.list()) == []
        disk.make_room()
        client.finish("true")
    server.stop()
    verify_server(path, server.state)
    assert json.loads(path.read_bytes().splitlines()[1])["event"] == "start"

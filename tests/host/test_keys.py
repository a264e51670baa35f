"""One key is one job: whoever repeats an order, and whatever became of the first answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from harness import Server, Stock

from joblet.client import CallError, Client, ClientConfig, ConnectionLost

ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
ACCEPTED = re.compile(r"job accepted")


@pytest.fixture
def fresh(make_server: Callable[..., Server]) -> Server:
    return make_server(joblet={"maxConcurrentJobs": 2}).start()


class Relay:
    """Between a client and the server. While it is mute the server's answers are lost."""

    def __init__(self, onward: int) -> None:
        self._onward = onward
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0
        self.mute = False

    def cut(self) -> None:
        """End the client's connections and be no longer mute."""
        self.mute = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._onward)
        self._writers += [writer, onward_writer]
        await asyncio.gather(
            self._pump(reader, onward_writer), self._pump(onward_reader, writer, answers=True), return_exceptions=True
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await reader.read(65536):
            if not (answers and self.mute):
                writer.write(data)


@asynccontextmanager
async def relayed(server: Server) -> AsyncIterator[tuple[Relay, Client]]:
    """A client that is connected to the server through a relay."""
    relay = Relay(server.port)
    listener = await asyncio.start_server(relay.join, "127.0.0.1", 0)
    folder: Path = server.certificates
    config = ClientConfig(
        f"localhost:{listener.sockets[0].getsockname()[1]}",
        *(str(folder / f"{name}.pem") for name in ("admin-cert", "admin-key", "ca-cert")),
    )
    try:
        async with Client(config) as client:
            await client.list()
            yield relay, client
    finally:
        relay.cut()
        listener.close()


async def accepted(server: Server) -> None:
    """Wait until the server has logged that it has a job."""
    await asyncio.to_thread(server.wait_for_line, ACCEPTED)


@pytest.mark.parametrize("options", [{"key": "nightly"}, {"retry": True}])
async def test_an_order_whose_answer_is_lost_is_repeated_and_is_one_job(fresh: Server, options) -> None:
    async with relayed(fresh) as (relay, client):
        relay.mute = True
        order = asyncio.create_task(client.run("echo", "once", **options))
        await accepted(fresh)
        relay.cut()
        job = await order
        assert relay.connections == 2
        assert b"".join([chunk async for chunk in job.logs()]) == b"once\n"
        listed = await client.list()
        assert [entry.id for entry in listed] == [job.id]
        assert listed[0].key == options.get("key", listed[0].key) != ""


async def test_without_a_key_nobody_knows_whether_there_is_a_job(fresh: Server) -> None:
    async with relayed(fresh) as (relay, client):
        relay.mute = True
        order = asyncio.create_task(client.run("true"))
        await accepted(fresh)
        relay.cut()
        with pytest.raises(ConnectionLost):
            await order
        assert len(await client.list()) == 1


async def test_every_retry_has_a_key_of_its_own(fresh: Server) -> None:
    async with relayed(fresh) as (_, client):
        jobs = [await client.run("true", retry=True) for _ in range(2)]
        assert jobs[0].id != jobs[1].id
        assert jobs[0].info.key != jobs[1].info.key


def test_rnx_gives_the_same_job_for_the_same_order(fresh: Server) -> None:
    command = ["run", "--job-key=build 7", "--max-memory=64", "--priority=3", "echo", "a"]
    first, second = fresh.rnx(*command), fresh.rnx(*command)
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")
    (job_id,) = ID.findall(first.stdout)
    assert ID.findall(second.stdout) == [job_id]
    shown = fresh.rnx("status", "-v", job_id).stdout
    assert "\nTimeout: 1h\nPriority: 3\nKey: build 7\n" in shown
    other = fresh.rnx("run", "--job-key=build 7", "echo", "b")
    assert other.returncode == 1
    assert other.stderr == f"Error: key 'build 7' belongs to job {job_id}, which was ordered otherwise\n"
    assert len(fresh.rnx("list").stdout.splitlines()) == 1


def test_a_key_outlives_the_server_and_the_job(fresh: Server, stock) -> None:
    with fresh.channel() as channel:
        client = Stock(channel, *stock)
        job = client.run("echo", "a", key="k")
        client.output(job.id)
    fresh.kill()
    fresh.start()
    with fresh.channel() as channel:
        client = Stock(channel, *stock)
        again = client.run("echo", "a", key="k", waitForStart=True)
        assert (again.id, again.status, again.startTime) == (job.id, "COMPLETED", job.startTime)
    assert fresh.rnx("delete", job.id).returncode == 0
    with fresh.channel() as channel:
        assert Stock(channel, *stock).run("echo", "b", key="k").id == "2"


def test_an_order_sent_many_times_at_once_is_one_job(fresh: Server, stock) -> None:
    with fresh.channel() as channel:
        client = Stock(channel, *stock)
        request = client.pb.RunJobReq(command="echo", args=["x"], key="same")
        calls = [client.stub.RunJob.future(request) for _ in range(50)]
        assert len({call.result().id for call in calls}) == 1
        assert len(client.list()) == 1
        # what the repetitions had reserved is free again
        jobs = [client.started("sleep", "1000") for _ in range(2)]
        assert [client.status(job.id).status for job in jobs] == ["RUNNING"] * 2
        for job in jobs:
            client.stop(job.id)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeoutMs": -1}, "invalid timeout: -1 ms"),
        ({"timeoutMs": 3_600_001}, "allowed 0 to 1h, joblet.jobTimeout"),
        ({"priority": 1001}, "invalid priority: 1001"),
        ({"key": "x" * 129}, "invalid key"),
        ({"key": "a\nb"}, "invalid key"),
    ],
)
def test_an_order_out_of_bounds_is_refused(client: Stock, options, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.run("true", **options)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


async def test_the_client_library_tells_a_key_that_was_used_otherwise(fresh: Server) -> None:
    async with relayed(fresh) as (_, client):
        await client.run("true", key="k")
        with pytest.raises(CallError, match="key 'k' belongs to job 1") as caught:
            await client.run("false", key="k")
        assert caught.value.code.name == "ALREADY_EXISTS"


def test_timeouts(fresh: Server, stock) -> None:
    with fresh.channel() as channel:
        client = Stock(channel, *stock)
        run = fresh.rnx("run", "--timeout=1h", "sleep", "1000")
        assert run.returncode == 0, run.stderr
        (job_id,) = ID.findall(run.stdout)
        changed = fresh.rnx("timeout", job_id, "1d")
        assert (changed.returncode, changed.stderr) == (0, "")
        lines = changed.stdout.splitlines()
        assert (lines[0], lines[1], lines[3]) == ("Job timeout changed:", f"ID: {job_id}", "Timeout: 24h")
        assert client.status(job_id).timeoutMs == 86_400_000
        fresh.rnx("timeout", job_id, "100ms")
        client.output(job_id)
        status = client.status(job_id)
        assert (status.status, status.reason) == ("STOPPED", "timeout after 100ms")
        ended = fresh.rnx("timeout", job_id, "1h")
        assert ended.returncode == 1
        assert ended.stderr == f"Error: job is not running: {job_id} (current status: STOPPED)\n"


def test_a_waiting_job_says_its_place(fresh: Server, stock) -> None:
    with fresh.channel() as channel:
        client = Stock(channel, *stock)
        running = [client.started("sleep", "1000") for _ in range(2)]
        waiting = [client.run("true", priority=priority) for priority in (0, 5, 9)]
        for job, place in zip(waiting, (3, 2, 1), strict=True):
            shown = fresh.rnx("status", "-v", job.id).stdout
            assert f"\nReason: waiting for a slot, place {place} in the queue\n" in shown
        for job in running:
            client.stop(job.id)
        for job in waiting:
            client.output(job.id)

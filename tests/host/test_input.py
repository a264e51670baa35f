"""Input of jobs through the server, by a stock client: SendJobInput."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until

SIZE = {"rows": 24, "columns": 80}


class Call:
    """One call of SendJobInput, whose messages come as a test says."""

    def __init__(self, channel: grpc.Channel, stock: tuple[ModuleType, ModuleType], job_id: str) -> None:
        self._pb = stock[0]
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.send(id=job_id)
        self.answer = stock[1].SessionServiceStub(channel).SendJobInput.future(iter(self._messages.get, None))

    def send(self, **fields: Any) -> None:
        if "size" in fields:
            fields["size"] = self._pb.Terminal(**fields["size"])
        self._messages.put(self._pb.JobInput(**fields))

    def finish(self) -> int:
        """End the call; how many bytes were taken."""
        self._messages.put(None)
        return self.result()

    def result(self) -> int:
        return self.answer.result(PATIENCE).bytes


@pytest.fixture
def feed(server: Server, stock: tuple[ModuleType, ModuleType]) -> Iterator[Callable[[str], Call]]:
    with server.channel() as channel:
        calls: list[Call] = []

        def make(job_id: str) -> Call:
            calls.append(Call(channel, stock, job_id))
            return calls[-1]

        yield make
        for call in calls:
            call._messages.put(None)


def await_output(client: Stock, job_id: str, text: bytes) -> bytes:
    """The job's output up to this text."""
    output = b""
    for chunk in client.logs(job_id):
        output += chunk
        if text in output:
            return output
    raise AssertionError(output)


def refusal(call: Call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    return caught.value.code(), caught.value.details()


def test_what_is_sent_is_read_and_has_its_end(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.run("cat", stdin=True)
    assert job.stdin
    call = feed(job.id)  # may be before the command runs
    call.send(content=b"one\n")
    assert await_output(client, job.id, b"one\n") == b"one\n"
    call.send(content=b"two\n", end=True)
    assert call.finish() == 8
    assert client.output(job.id) == b"one\ntwo\n"
    assert client.status(job.id).status == "COMPLETED"


def test_two_clients_share_an_input(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.started("cat", stdin=True)
    one, other = feed(job.id), feed(job.id)
    for number in range(50):
        (one, other)[number % 2].send(content=b"ab"[number % 2 :][:1] * 999 + b"\n")
    assert one.finish() == other.finish() == 25_000
    last = feed(job.id)
    last.send(end=True)
    last.finish()
    lines = client.output(job.id).splitlines()
    assert sorted(lines) == [b"a" * 999] * 25 + [b"b" * 999] * 25


def test_a_job_that_never_reads_holds_up_nobody_else(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.started("sh", "-c", "echo there; exec sleep 1000", stdin=True)
    call = feed(job.id)
    for _ in range(64):
        call.send(content=b"x" * 65536)
    assert client.finish("echo", "hello")[1] == b"hello\n"
    assert await_output(client, job.id, b"there\n")
    client.stop(job.id)
    assert 0 < call.result() < 64 * 65536  # answered early, with what was taken


def test_much_input_for_one_who_reads_little_is_answered_early(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.started("sh", "-c", "head -c 3; exec sleep 1000 <&-", stdin=True)
    call = feed(job.id)
    for _ in range(64):
        call.send(content=b"x" * 65536)
    assert 3 <= call.result() < 64 * 65536
    again = feed(job.id)
    again.send(content=b"x")
    assert refusal(again) == (grpc.StatusCode.FAILED_PRECONDITION, f"the input of job {job.id} has ended")
    client.stop(job.id)


def test_what_takes_no_input_says_so(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.started("sleep", "1000")
    assert refusal(feed(job.id)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"job takes no input: {job.id} (it was not run with stdin or a terminal)",
    )
    client.stop(job.id)
    ended = client.finish("true", stdin=True)[0]
    assert refusal(feed(ended.id)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"job is not running: {ended.id} (current status: COMPLETED)",
    )
    assert refusal(feed("999999")) == (grpc.StatusCode.NOT_FOUND, "job not found: 999999")
    missing = client.run("not-there", stdin=True)
    assert refusal(feed(missing.id))[0] == grpc.StatusCode.FAILED_PRECONDITION


def test_a_viewer_may_not_send(client: Stock, server: Server, stock: tuple[ModuleType, ModuleType]) -> None:
    job = client.started("cat", stdin=True)
    with server.channel("viewer") as channel:
        assert refusal(Call(channel, stock, job.id)) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "role viewer is not allowed to perform operation send_job_input",
        )
    client.stop(job.id)


def test_a_terminal_has_a_size_and_signals(client: Stock, feed: Callable[[str], Call]) -> None:
    script = "stty size; trap 'stty size' WINCH; trap 'exit 5' INT; echo ready; while :; do sleep 0.02; done"
    job = client.started("bash", "-c", script, terminal=client.pb.Terminal(**SIZE))
    assert (job.stdin, job.terminal.rows, job.terminal.columns) == (True, 24, 80)
    call = feed(job.id)
    await_output(client, job.id, b"24 80\r\nready\r\n")
    call.send(size={"rows": 40, "columns": 132})
    await_output(client, job.id, b"40 132\r\n")
    call.send(content=b"\x03")
    assert call.result() == 1  # answered when the job ends
    assert client.status(job.id).exitCode == 5


def test_a_terminal_has_a_kind(client: Stock) -> None:
    terminal = client.pb.Terminal(**SIZE, term="screen-256color")
    _, output = client.finish("sh", "-c", "echo $TERM; tty", terminal=terminal)
    assert output == b"screen-256color\r\n/dev/pts/0\r\n"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"terminal": {"rows": 0, "columns": 80}}, "invalid terminal: 0 rows (allowed 1 to 65535)"),
        ({"terminal": {"rows": 1, "columns": 65536}}, "invalid terminal: 65536 columns (allowed 1 to 65535)"),
        ({"terminal": {**SIZE, "term": "a b"}}, "invalid terminal: 'a b' is no kind of terminal (as xterm-256color)"),
        ({"terminal": SIZE, "separateStreams": True}, "invalid separateStreams: a terminal has only one stream"),
        ({"stdin": True, "retries": 2}, "invalid retries: 2 of a job that takes input, which nobody would send again"),
        (
            {"terminal": SIZE, "schedule": {"when": "@daily"}},
            "invalid schedule: '@daily' of a job that has a terminal, which nobody would send again",
        ),
    ],
)
def test_what_cannot_be_is_refused(client: Stock, fields: dict[str, Any], sentence: str) -> None:
    made = dict(fields)
    for name, kind in (("terminal", client.pb.Terminal), ("schedule", client.pb.Schedule)):
        if name in made:
            made[name] = kind(**made[name])
    with pytest.raises(grpc.RpcError) as caught:
        client.run("true", **made)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)


def test_a_size_that_no_terminal_has_is_refused(client: Stock, feed: Callable[[str], Call]) -> None:
    job = client.started("cat", terminal=client.pb.Terminal(**SIZE))
    call = feed(job.id)
    call.send(size={"rows": 24, "columns": 0})
    assert refusal(call) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid terminal: 0 columns (allowed 1 to 65535)",
    )
    client.stop(job.id)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_input_goes_on_with_the_next_server(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType], end: str
) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("cat", stdin=True)
        call = Call(channel, stock, job.id)
        call.send(content=b"before\n")
        await_output(client, job.id, b"before\n")
        getattr(server, end)()
        assert refusal(call)[0] == grpc.StatusCode.UNAVAILABLE
        if end == "stop":  # an idle call does not hold it up
            stopping = next(i for i, line in enumerate(server.lines) if "is shutting down" in line)
            assert "server stopped" in "\n".join(server.lines[stopping:])
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        call = Call(channel, stock, job.id)
        call.send(content=b"after\n", end=True)
        assert call.finish() == 6
        assert client.output(job.id) == b"before\nafter\n"


def test_who_leaves_leaves_nothing(server: Server, client: Stock, stock: tuple[ModuleType, ModuleType]) -> None:
    job = client.started("cat", stdin=True)
    fifo = server.state / "jobs" / job.id / "input"
    with server.channel() as channel:
        call = Call(channel, stock, job.id)
        call.send(content=b"here\n")
        await_output(client, job.id, b"here\n")
        assert len(server.descriptors_of(fifo)) == 1
    poll_until(lambda: not server.descriptors_of(fifo))
    assert client.status(job.id).status == "RUNNING"
    client.stop(job.id)

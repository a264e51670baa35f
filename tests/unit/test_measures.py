"""What the server counts of itself, without a server: histograms, what jobs ended of, and answers over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import poll_until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from joblet.config import ConfigError, load
from joblet.job import Cause, Job, Limits, State, cause_of, conclude
from joblet.measures import SLOW, Histogram, JobMeasures
from joblet.server.scrape import CannotListen, Exposition, asked_of
from joblet.timetable import Timetable

JOB = Job(1, "true", (), Limits(100, 64, 0), State.FAILED, "alice", created_at=0, started_at=1, exec_at=2)
SECOND = 1_000_000_000


@given(st.lists(st.floats(0, 100_000)))
def test_a_histogram_counts_each_value_once_below_its_bound(values: list[float]) -> None:
    histogram = Histogram(SLOW)
    for value in values:
        histogram.observe(value)
    below = [sum(value <= bound for value in values) for bound in SLOW] + [len(values)]
    assert [sum(histogram.counts[: place + 1]) for place in range(len(below))] == below
    assert histogram.sum == pytest.approx(sum(values))
    taken = histogram.copy()
    histogram.observe(1)
    assert (sum(taken.counts), taken.sum) == (len(values), pytest.approx(sum(values)))


@pytest.mark.parametrize(
    ("job", "cause"),
    [
        (replace(JOB, state=State.COMPLETED), Cause.COMPLETED),
        (replace(JOB, reason="exit code 3", exit_code=3), Cause.EXIT_CODE),
        (replace(JOB, reason="exit code 1 (2 of its processes killed: out of memory)"), Cause.EXIT_CODE),
        (replace(JOB, state=State.STOPPED, reason="timeout after 1h"), Cause.TIMEOUT),
        (replace(JOB, state=State.STOPPED, reason="stopped by alice"), Cause.STOPPED),
        (replace(JOB, exec_at=None, reason="command not found", exit_code=127), Cause.NOT_STARTED),
        (replace(JOB, reason="lost: the host was rebooted", exit_code=-1), Cause.LOST),
        (replace(JOB, exec_at=None, reason="lost: its monitor was killed", exit_code=-1), Cause.LOST),
    ],
)
def test_what_a_job_ended_of(job: Job, cause: Cause) -> None:
    assert cause_of(job) is cause


@pytest.mark.parametrize(
    ("killed_by", "oom_kills", "cause"), [(9, 1, Cause.OUT_OF_MEMORY), (9, 0, Cause.SIGNAL), (11, 0, Cause.SIGNAL)]
)
def test_the_verdict_on_a_killed_command_is_its_cause(killed_by: int, oom_kills: int, cause: Cause) -> None:
    ending = conclude(code=None, killed_by=killed_by, stopped=False, stop_reason="", oom_kills=oom_kills)
    assert cause_of(replace(JOB, state=ending.state, reason=ending.reason)) is cause


def test_waiting_counts_from_the_time_that_a_job_was_for() -> None:
    measures = JobMeasures()
    measures.started(replace(JOB, created_at=0, started_at=2 * SECOND, exec_at=2 * SECOND + 4_000_000))
    assert (measures.queue_wait.sum, measures.launch.sum) == (2.0, 0.004)
    measures.started(replace(JOB, created_at=0, scheduled_at=60 * SECOND, started_at=61 * SECOND, exec_at=61 * SECOND))
    assert measures.queue_wait.sum == 3.0
    measures.started(
        replace(JOB, created_at=5 * SECOND, started_at=4 * SECOND, exec_at=3 * SECOND)
    )  # the clock was set
    assert measures.queue_wait.sum == 3.0


async def test_a_timetable_tells_its_next_time_and_who_is_late() -> None:
    table = Timetable()
    assert (table.next_time, table.overdue(SECOND)) == (None, 0)
    far = 2**61
    table.wait(1, far + 2)
    table.wait(2, far)
    table.wait(3, None)
    assert table.next_time == far
    assert [table.overdue(now) for now in (far, far + 1, far + 3)] == [0, 1, 2]
    table.close()


@pytest.mark.parametrize(
    ("listen", "fault"),
    [
        ("0.0.0.0:9464", "only an address of this host alone, such as 127.0.0.1: nobody is asked there who he is"),
        ("localhost:9464", "write ADDRESS:PORT, such as 127.0.0.1:9464, unix:PATH, or none"),
        ("", "write ADDRESS:PORT, such as 127.0.0.1:9464, unix:PATH, or none"),
        ("127.0.0.1:65536", "the port is 0 (a free one) to 65535"),
        ("127.0.0.1:0111111", "the port is 0 (a free one) to 65535"),
        ("127.0.0.1:" + "9" * 10_000, "the port is 0 (a free one) to 65535"),
        ("127.0.0.1:", "the port is 0 (a free one) to 65535"),
        ("unix:", "a path has to follow unix:"),
    ],
)
def test_where_nobody_may_listen_the_configuration_says_so(tmp_path: Path, listen: str, fault: str) -> None:
    path = tmp_path / "joblet-config.yml"
    path.write_text(f'metrics: {{listen: "{listen}"}}')
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == f"{path}: metrics.listen: {fault} (got {listen!r})"


@pytest.mark.parametrize("listen", ["none", "127.0.0.1:0", "[::1]:9464", "127.8.9.1:1", "unix:metrics.sock"])
def test_where_it_may(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "joblet-config.yml"
    path.write_text(f'metrics: {{listen: "{listen}"}}')
    assert load(path).metrics.listen == listen


class Answers(Collector):
    """One metric, or an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        if self.error:
            raise self.error
        yield GaugeMetricFamily("answers", "It does.", 1)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def path(tmp_path: Path, answers: Answers) -> Iterator[Path]:
    """The socket of an exposition in a directory that it has made."""
    registry = CollectorRegistry()
    registry.register(answers)
    path = tmp_path / "made" / "metrics.sock"
    exposition = Exposition(f"unix:{path}", registry)
    yield path
    exposition.close()
    assert not path.exists()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(path))
    return client


def scrape(path: Path) -> str:
    with connect(path) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_a_socket_is_roots_and_its_groups(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o660
    assert "\nanswers 1.0\n" in scrape(path)


def test_who_cannot_be_asked_answers_503(path: Path, answers: Answers) -> None:
    answers.error = TimeoutError("the loop stands still")
    assert scrape(path).startswith("HTTP/1.0 503 ")
    answers.error = None
    assert scrape(path).startswith("HTTP/1.0 200 ")


def test_idle_clients_take_no_more_than_their_room(path: Path) -> None:
    idle = [connect(path) for _ in range(8)]
    for client in idle:  # so that it has a thread when the next one comes
        client.sendall(b"GET /metrics HTTP/1.0\r\n")
    with connect(path) as refused:
        assert refused.recv(1) == b""
    for client in idle:
        client.sendall(b"\r\n")
        assert client.recv(12) == b"HTTP/1.0 200"
        while client.recv(65536):
            pass
        client.close()
    poll_until(lambda: is_answered(path))  # a thread gives its room back after its client has its answer


def is_answered(path: Path) -> bool:
    try:
        return scrape(path).startswith("HTTP/1.0 200 ")
    except ConnectionError:
        return False


def test_a_socket_that_was_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    Exposition(f"unix:{tmp_path / 'left.sock'}", CollectorRegistry()).close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CannotListen, match=f"metrics.listen: unix:{tmp_path}/file: Address already in use"):
        Exposition(f"unix:{tmp_path / 'file'}", CollectorRegistry())
    assert (tmp_path / "file").read_text() == "precious"


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=f"metrics.listen: {listen}: Address already in use"):
            Exposition(listen, CollectorRegistry())


async def test_the_event_loop_is_asked_from_other_threads() -> None:
    here = threading.get_ident()
    ask = asked_of(asyncio.get_running_loop(), threading.get_ident)
    assert await asyncio.to_thread(ask) == here

    def fail() -> None:
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        await asyncio.to_thread(asked_of(asyncio.get_running_loop(), fail))

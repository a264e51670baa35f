"""The wall clock is set while jobs run, or between two servers: no time-out fires for that, and no history is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness import Server, Stock
from wall_clock import COMPILER, Clock

HOUR = 3600
DAY = 24 * HOUR
BACK = 240
"""not so far that certificates made now are not valid yet"""

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="the server's clock is set with a C compiler's help (cc)"),
]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def moment(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def durations(server: Server) -> list[str]:
    """Those that the server's log tells."""
    return [found.group(1) for line in server.lines if (found := re.search(r" duration=(\S+)", line))]


def assert_sane(server: Server) -> None:
    for text in durations(server):
        assert re.fullmatch(r"(\d+m)?(\d+s)?(\d+ms)?", text), text


def test_the_clock_of_the_server_is_the_one_set(make_server, stock, clock: Clock) -> None:
    clock.set(10 * DAY)
    server = clock.start(make_server())
    with server.channel() as channel:
        status, _ = Stock(channel, *stock).finish("true")
    assert moment(status.startTime) - time.time() > 9 * DAY


@pytest.mark.parametrize("jump", [DAY, -BACK])
@pytest.mark.parametrize("restart", [None, Server.stop, Server.kill])
def test_a_timeout_is_neither_early_nor_late(
    make_server, stock, clock: Clock, jump: int, restart: Callable[[Server], object] | None
) -> None:
    server = clock.start(make_server(joblet={"cleanupTimeout": "2s"}))
    with server.channel() as channel:
        client = Stock(channel, *stock)
        long = client.started("sleep", "1000", timeoutMs=HOUR * 1000)
        short = client.started("sleep", "1000", timeoutMs=3000)
        if restart:
            restart(server)
        clock.set(jump)
    if restart:
        clock.start(server)
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.output(short.id)
        ended = client.status(short.id)
        assert (ended.status, ended.reason) == ("STOPPED", "timeout after 3s")
        assert client.status(long.id).status == "RUNNING"
        # It takes a time-out from now on as from any clock.
        client.stub.SetJobTimeout(client.pb.SetJobTimeoutReq(id=long.id, timeoutMs=HOUR * 1000))
        assert client.status(long.id).status == "RUNNING"
        assert client.stop(long.id).status == "STOPPED"
        assert 2.9 <= ended.receipt.wallUsec / 1e6 < 60
    assert_sane(server)


@pytest.mark.parametrize("jump", [HOUR, -BACK])
def test_an_end_before_its_start_breaks_nothing(make_server, stock, clock: Clock, jump: int) -> None:
    """The monitor's clock is the host's; the server's was set meanwhile, or is wrong."""
    server = clock.start(make_server())
    clock.set(jump)
    with server.channel() as channel:
        client = Stock(channel, *stock)
        before = client.started("sleep", "0.5")
        clock.set(0)
        client.output(before.id)
        clock.set(jump)
        status, output = client.finish("echo", "said")
        assert (status.status, output) == ("COMPLETED", b"said\n")
        for job in client.list():
            assert job.status == "COMPLETED"
            assert moment(job.endTime) >= moment(job.startTime)
        assert 0 <= status.receipt.wallUsec < 60e6
        shown = server.rnx("status", "-v", status.id)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert server.rnx("list").returncode == 0
    server.stop()
    clock.start(server)
    with server.channel() as channel:
        assert [job.status for job in Stock(channel, *stock).list()] == ["COMPLETED", "COMPLETED"]
    assert_sane(server)


def test_no_history_is_lost_because_the_clock_was_set(make_server, stock, clock: Clock) -> None:
    server = clock.start(make_server(retention={"maxAge": "1h"}))
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job, _ = client.finish("echo", "kept")
        clock.set(365 * DAY)
        # It looks twice a minute, and says so before it removes anything.
        server.wait_for_line(re.compile(rf"\[WARN\] the clock was set; .* \| seconds={365 * DAY}"))
        assert client.finish("true")[0].status == "COMPLETED"
        assert client.status(job.id).status == "COMPLETED"
        assert client.output(job.id) == b"kept\n"

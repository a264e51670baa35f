"""Clients outlive their server: logs go on where they were, and an order with a key is answered in the end."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import IO

import pytest
from harness import PATIENCE, Server, Stock, poll_until

LINES = 400
COUNT = f"import time\nfor n in range({LINES}): print(n, 'x' * (n % 100), flush=True); time.sleep(0.02)"
COUNTED = [f"{n} {'x' * (n % 100)}" for n in range(LINES)]
ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)


class Follower:
    """`rnx log` as a process; what it has written so far."""

    def __init__(self, server: Server, job_id: str, *flags: str) -> None:
        command = server.rnx_command("log", *flags, job_id)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._news = threading.Condition()
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for_lines(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.lines) >= count, PATIENCE), self.lines

    def end(self) -> tuple[int, list[str], str]:
        """Its exit status, the lines after the header, and what it said on stderr."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        assert self.lines[0].startswith("Logs for job")
        return status, self.lines[1:], self.process.stderr.read()


def test_every_line_once_whatever_becomes_of_the_server(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("python3", "-c", COUNT)
    followers = [Follower(server, job.id) for _ in range(4)]
    for number in range(6):
        # each time they have got something since the last
        for follower in followers:
            follower.wait_for_lines(2 + number * 20)
        (server.stop if number % 2 else server.kill)()
        server.start()
    for follower in followers:
        assert follower.end() == (0, COUNTED, "")


def test_a_log_ends_although_the_job_ended_while_the_server_was_away(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "echo one; read -t 0.5 < /dev/zero; echo two; exit 3")
    follower = Follower(server, job.id)
    follower.wait_for_lines(2)
    server.kill()
    poll_until((server.state / "jobs" / job.id / "exit").exists)
    server.start()
    assert follower.end() == (0, ["one", "two"], "")


def test_a_log_of_a_job_that_is_gone_ends_in_an_error(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "echo one; sleep 1000")
    follower = Follower(server, job.id)
    follower.wait_for_lines(2)
    server.kill()
    follower.process.send_signal(signal.SIGSTOP)
    server.start()
    with server.channel() as channel:
        Stock(channel, *stock).stop(job.id)
    assert server.rnx("delete", job.id).returncode == 0
    follower.process.send_signal(signal.SIGCONT)
    assert follower.end() == (1, ["one"], f"Error: job not found: {job.id}\n")


def test_a_log_gives_up_when_the_server_stays_away(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "echo one; sleep 1000")
    follower = Follower(server, job.id, "--reconnect=2s")
    follower.wait_for_lines(2)
    server.kill()
    status, lines, errors = follower.end()
    assert (status, lines) == (1, ["one"])
    place = f"localhost:{server.port}"
    assert errors == f"Error: cannot connect to {place}: connection refused (tried again for 2 s)\n"


def test_ctrl_c_ends_a_log_that_waits_for_its_server(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "echo one; sleep 1000")
    follower = Follower(server, job.id, "--reconnect=1h")
    follower.wait_for_lines(2)
    server.kill()
    follower.process.send_signal(signal.SIGINT)
    assert follower.end() == (130, ["one"], "")


@pytest.mark.parametrize("rounds", [8])
def test_an_order_with_a_key_is_answered_by_the_next_server(make_server: Callable[..., Server], stock, rounds) -> None:
    server = make_server().start()
    for number in range(rounds):
        # killed between the job's commit and the client's answer, or about then
        seen = len(server.lines)
        command = server.rnx_command("run", f"--job-key=k{number}", "echo", str(number))
        order = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.wait_for_line(re.compile("job accepted"), seen)
        server.kill()
        server.start()
        text, errors = order.communicate(timeout=PATIENCE)
        assert (order.returncode, errors, ID.findall(text)) == (0, "", [str(number + 1)])
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert [job.key for job in client.list()] == [f"k{number}" for number in range(rounds)]

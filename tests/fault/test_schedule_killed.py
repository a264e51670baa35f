"""Servers are killed around the times of a schedule: each of its times makes one job, which runs once."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from harness import Server, Stock, poll_until
from wall_clock import COMPILER, Clock

from joblet.audit.query import Query, find

MINUTE = 60

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="the server's clock is set with a C compiler's help (cc)"),
]


def rows(server: Server, schedule: str = "1") -> list[tuple[int, int, str]]:
    """(id, scheduled_at in seconds, state) of the jobs that a schedule has made, by id."""
    sql = "SELECT id, scheduled_at / 1000000000, state FROM jobs WHERE schedule_id = ? ORDER BY id"
    with closing(sqlite3.connect(server.state / "joblet.db")) as database:
        return database.execute(sql, (schedule,)).fetchall()


class Minutes:
    """A server whose clock is put to just before a minute begins, while it is away."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self.offset = 0.0

    @property
    def now(self) -> float:
        return time.time() + self.offset

    def start(self, left: float) -> None:
        """Start the server, with so many seconds to go."""
        self.offset += MINUTE - self.now % MINUTE - left
        self.clock.set(self.offset)
        self.clock.start(self.server)


def all_ended(server: Server) -> bool:
    return all(state == "COMPLETED" for _, _, state in rows(server))


def test_each_time_makes_one_job_whenever_the_server_is_killed(make_server, stock, tmp_path: Path) -> None:
    chance, server = Random(5), make_server()
    minutes = Minutes(server, Clock(tmp_path))
    minutes.start(20)
    file = tmp_path / "data.txt"
    file.write_text("whole\n")
    options = ["--schedule=* * * * *", "--overlap=allow", "--catch-up=all", f"--upload={file}"]
    assert server.rnx("run", *options, "cat", "data.txt").returncode == 0
    first = minutes.now // MINUTE + 1
    for _ in range(3):
        server.kill()
        minutes.start(chance.uniform(0.5, 1.5))  # which is about as long as it takes
        time.sleep(chance.uniform(0, 0.8))  # at any instant
    server.kill()
    minutes.offset += 3 * MINUTE
    minutes.start(30)
    poll_until(lambda: len(rows(server)) >= minutes.now // MINUTE - first + 1 and all_ended(server))
    made = rows(server)
    assert [at for _, at, _ in made] == [round((first + number) * MINUTE) for number in range(len(made))]
    lines = [values for _, values in find([server.state / "audit.log"], Query()) if values.get("by") == "schedule"]
    told = {(line["job"], line["schedule"], line["client"]) for line in lines}
    assert len(told) >= len(made) - 4, "a server that is killed may not come to tell of the job that it has just made"
    assert told <= {(str(job_id), "1", "admin") for job_id, _, _ in made}
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for job_id, _, _ in made:
            assert client.output(str(job_id)) == b"whole\n"
        # Another start neither makes a job again nor runs one.
        assert client.stop("1").status == "STOPPED"
    server.kill()
    server.start()
    assert rows(server) == made


def test_what_overlaps_is_left_out_waits_or_is_replaced(make_server, tmp_path: Path) -> None:
    server = make_server(joblet={"cleanupTimeout": "1s"})
    minutes = Minutes(server, Clock(tmp_path))
    minutes.start(30)
    for overlap in ("skip", "queue", "replace"):
        assert server.rnx("run", "--schedule=* * * * *", f"--overlap={overlap}", "sleep", "1000").returncode == 0

    def states(schedule: str) -> list[str]:
        return [state for _, _, state in rows(server, schedule)]

    server.stop()
    minutes.start(1)
    poll_until(lambda: [states(schedule) for schedule in "123"] == [["RUNNING"]] * 3)
    server.stop()
    minutes.start(1)
    poll_until(lambda: states("2") == ["RUNNING", "SCHEDULED"] and states("3") == ["STOPPED", "RUNNING"])
    assert states("1") == ["RUNNING"]
    (running, _, _), (waiting, _, _) = rows(server, "2")
    why = server.rnx("why", str(waiting)).stdout
    assert why.startswith(f"Job {waiting} SCHEDULED: waiting for the end of the other jobs of schedule 2\n")
    assert server.rnx("stop", str(running)).returncode == 0
    poll_until(lambda: states("2") == ["STOPPED", "RUNNING"])


def test_attempts_are_made_once_whenever_the_server_is_killed(make_server, stock) -> None:
    chance = Random(2)
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.run("sh", "-c", "echo ran; exit 1", retries=12, retryDelayMs=1)
    for _ in range(3):
        time.sleep(chance.uniform(0, 0.3))  # at any instant
        server.kill()
        server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        poll_until(lambda: client.list()[-1].attempt == 13 and client.list()[-1].status == "FAILED")
        jobs = client.list()
        assert [job.attempt for job in jobs] == list(range(1, 14))
        assert [job.retriedBy for job in jobs] == [*(str(number) for number in range(2, 14)), ""]
        for job in jobs:  # what was killed on its way to the command has run once, or has not and says so
            assert client.output(job.id) == b"ran\n" or re.match("lost|failed", job.reason)

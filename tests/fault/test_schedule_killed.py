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

MINUTE = 60

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(COMPILER is None, reason="the server's clock is set with a C compiler's help (cc)"),
]


def rows(server: Server) -> list[tuple[int, int, str]]:
    """(id, scheduled_at in seconds, state) of the jobs that schedule 1 has made, by id."""
    sql = "SELECT id, scheduled_at / 1000000000, state FROM jobs WHERE schedule_id = 1 ORDER BY id"
    with closing(sqlite3.connect(server.state / "joblet.db")) as database:
        return database.execute(sql).fetchall()


def all_ended(server: Server) -> bool:
    return all(state == "COMPLETED" for _, _, state in rows(server))


def test_each_time_makes_one_job_whenever_the_server_is_killed(make_server, stock, tmp_path: Path) -> None:
    clock, chance = Clock(tmp_path), Random(5)
    server = make_server()
    offset = float(MINUTE - time.time() % MINUTE) - 20
    clock.set(offset)
    clock.start(server)
    file = tmp_path / "data.txt"
    file.write_text("whole\n")
    options = ["--schedule=* * * * *", "--overlap=allow", "--catch-up=all", f"--upload={file}"]
    assert server.rnx("run", *options, "cat", "data.txt").returncode == 0
    first = (time.time() + offset) // MINUTE + 1
    for _ in range(5):
        server.kill()
        # The next minute begins while the server does, or a moment later.
        offset += MINUTE - (time.time() + offset) % MINUTE - chance.uniform(0.5, 1.5)
        clock.set(offset)
        clock.start(server)
        time.sleep(chance.uniform(0, 0.8))  # at any instant
    server.kill()
    offset += 3 * MINUTE
    clock.set(offset)
    clock.start(server)
    poll_until(lambda: len(rows(server)) >= (time.time() + offset) // MINUTE - first + 1 and all_ended(server))
    made = rows(server)
    assert [at for _, at, _ in made] == [round((first + number) * MINUTE) for number in range(len(made))]
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for job_id, _, _ in made:
            assert client.output(str(job_id)) == b"whole\n"
        # Another start neither makes a job again nor runs one.
        assert client.stop("1").status == "STOPPED"
    server.kill()
    server.start()
    assert rows(server) == made


def test_attempts_are_made_once_whenever_the_server_is_killed(make_server, stock) -> None:
    chance = Random(2)
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.run("sh", "-c", "echo ran; exit 1", retries=12, retryDelayMs=1)
    for _ in range(4):
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

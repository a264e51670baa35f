"""What the page about capacity says of single things, where it can be counted and does not depend on the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from harness import Server, Stock, poll_until
from pages import Page, runs_jobs

TEXT = Page("docs/capacity.md").text


def told(what: str, column: int) -> int:
    """A number of the first table, by the beginning of its line."""
    (row,) = re.findall(rf"^\| {what}.*$", TEXT, re.MULTILINE)
    return int(re.findall(r"\d+", row.split("|")[column])[0])


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@runs_jobs
def test_descriptors_and_files_are_as_many_as_is_said(make_server: Callable[..., Server], stock) -> None:
    jobs = 8
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        ended, _ = client.finish("true")
        idle = descriptors(server)
        assert idle <= told("the server, idle", 3)
        running = [client.started("sleep", "1000").id for _ in range(jobs)]
        with_jobs = idle + jobs * told("a running job", 3)
        poll_until(lambda: descriptors(server) == with_jobs)
        followed = [client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job_id)) for job_id in running]
        poll_until(lambda: descriptors(server) == with_jobs + jobs * told("a log that is followed", 3))
        for call in followed:
            call.cancel()
        poll_until(lambda: descriptors(server) == with_jobs)
    directory = server.state / "jobs" / ended.id
    assert f"in {1 + sum(1 for _ in directory.rglob('*'))} files" in TEXT

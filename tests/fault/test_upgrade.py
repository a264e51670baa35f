"""State directories that earlier releases left, as their machine went down: all that was there is there."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data.make_state import described_workflow
from harness import ROOT, Server, Stock

from joblet.store.schema import newest_schema

STATES = sorted((ROOT / "tests/data").glob("state-*.tar.gz"))
WORKFLOWS = sorted((ROOT / "tests/data").glob("workflows-*.tar.gz"))
ENDED = {"completed", "failed", "killed", "absent", "stopped"}
LOST = {"lost: its monitor was killed", "lost: the host was rebooted"}
"""the first on the machine that made the state, until it is booted again"""


def extract(archive: Path, folder: Path) -> None:
    subprocess.run(["tar", "--numeric-owner", "-xzpf", str(archive), "-C", str(folder)], check=True)


def unpack(archive: Path, server: Server) -> dict[str, dict[str, Any]]:
    """Put a frozen state in a server's place; what its own server said of its jobs, by name."""
    extract(archive, server.directory)
    said: dict[str, dict[str, Any]] = json.loads(
        archive.with_name(archive.name.replace(".tar.gz", ".json")).read_text()
    )
    return said


@pytest.mark.parametrize("archive", STATES, ids=lambda path: path.name.partition(".")[0])
def test_the_jobs_of_an_earlier_release(make_server: Callable[..., Server], stock, archive: Path) -> None:
    server = make_server()
    said = unpack(archive, server)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        outputs = {name: client.output(job["id"]).decode() for name, job in said.items()}
        found = {name: client.status(job["id"]) for name, job in said.items()}
        assert outputs == {name: job["output"] for name, job in said.items()}
        # what had ended is as it was said to be; of the others, what they were asked
        for name, job in said.items():
            fields = set(job) - {"output"} - (set() if name in ENDED else {"status", "endTime", "exitCode", "reason"})
            if name == "waiting":
                fields.remove("startTime")
            shown = {field: getattr(found[name], field) for field in fields - {"args"}} | {
                "args": list(found[name].args)
            }
            assert shown == {field: job[field] for field in fields}, name
        # what nobody saw end
        unseen, waited = found["unseen"], found["waiting"]
        assert (unseen.status, unseen.exitCode, unseen.reason) == ("FAILED", 4, "exit code 4")
        assert (waited.status, waited.exitCode, waited.reason) == ("COMPLETED", 0, "exit code 0")
        for name in ("running", "running too"):
            assert (found[name].status, found[name].exitCode) == ("FAILED", -1)
            assert found[name].reason in LOST
        # what earlier releases did not know
        for job in found.values():
            assert (job.timeoutMs, job.priority, job.key, job.maxDisk, job.cpuCores) == (3_600_000, 0, "", 0, "")
            assert job.maxProcesses > 0
            assert job.maxOpenFiles > 0
            assert job.endTime >= job.startTime
        listed = client.list()
        assert [job.id for job in listed] == sorted((job["id"] for job in said.values()), key=int)
        # and it goes on from there
        assert client.run("true").id == str(len(said) + 1)
        client.output(str(len(said) + 1))
    assert server.rnx("delete", "--all", "--yes").stdout.splitlines()[1] == f"Deleted: {len(said) + 1}"


@pytest.mark.parametrize("archive", [*STATES, *WORKFLOWS], ids=lambda path: path.name.partition(".")[0])
def test_a_frozen_state_is_what_its_name_says(tmp_path: Path, archive: Path) -> None:
    extract(archive, tmp_path)
    kind = archive.name.partition("-")[0]
    connection = sqlite3.connect(tmp_path / "state/joblet.db")
    try:
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        states = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
    finally:
        connection.close()
    assert archive.name == f"{kind}-v{schema}.tar.gz"
    assert (
        states
        == {
            "state": {"COMPLETED": 1, "FAILED": 3, "STOPPED": 1, "RUNNING": 3, "PENDING": 1},
            "workflows": {"COMPLETED": 2, "FAILED": 2, "RUNNING": 1},
        }[kind]
    )


@pytest.mark.parametrize("archive", WORKFLOWS, ids=lambda path: path.name.partition(".")[0])
def test_the_workflows_of_an_earlier_release(make_server: Callable[..., Server], stock, archive: Path) -> None:
    server = make_server()
    said = unpack(archive, server)
    server.start()
    messages, stubs = stock
    with server.channel() as channel:
        client, workflows = Stock(channel, *stock), stubs.JobServiceStub(channel)

        def status(name: str) -> dict[str, Any]:
            number = said[name]["id"]
            for _ in workflows.WatchEvents(messages.WatchEventsRequest(workflowId=number)):
                pass  # until it has ended
            return described_workflow(workflows.GetWorkflowStatus(messages.GetWorkflowStatusRequest(workflowId=number)))

        assert status("ended") == said["ended"]
        assert [client.output(said["ended"]["jobs"][step]["jobId"]) for step in (0, 1)] == [b"fetched\n", b"1,2\n"]
        # what was done stays done, what was lost is told, and what comes after has all that it was to have
        found = status("interrupted")
        first, second, third = found["jobs"]
        assert (found["status"], found["yamlContent"]) == ("FAILED", said["interrupted"]["yamlContent"])
        assert first == said["interrupted"]["jobs"][0]
        assert (second["jobId"], second["status"], second["reason"] in LOST) == ("5", "FAILED", True)
        assert (third["jobId"], third["status"], third["attempt"]) == ("6", "COMPLETED", 1)
        assert client.output("6") == b"shared\n1,2\n7 here\n"
        order = messages.RunWorkflowRequest(yamlContent="jobs: {a: {command: 'true'}}")
        assert workflows.RunWorkflow(order).workflowId == "3"


def test_a_newer_releases_state_is_refused_and_left_as_it_is(make_server: Callable[..., Server]) -> None:
    server = make_server()
    unpack(STATES[-1], server)
    database = server.state / "joblet.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(AssertionError) as caught:
        server.start()
    text = f"the database has schema 99, this joblet knows up to {newest_schema()}: use a newer joblet"
    assert [line for line in server.lines if text in line] == server.lines[:1], caught.value
    assert database.read_bytes() == before
    assert not (server.state / "joblet.db-wal").exists()

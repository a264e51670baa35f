"""The client that blocks, against a real server."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from harness import Server

from joblet.client import Client as AsyncClient
from joblet.client import ClientConfig, InvalidWorkflow, JobletError, NotFound, SettingsError, sync


@pytest.fixture
def config(server: Server) -> ClientConfig:
    names = ("admin-cert", "admin-key", "ca-cert")
    files = (str(server.certificates / f"{name}.pem") for name in names)
    return ClientConfig(f"localhost:{server.port}", *files)


@pytest.fixture
def blocking(config: ClientConfig) -> Iterator[sync.Client]:
    with sync.Client(config) as client:
        yield client


def test_a_job(blocking: sync.Client) -> None:
    job = blocking.run("bash", "-c", "echo on; exit 3", max_memory=64)
    assert b"".join(job.logs()) == b"on\n"
    ended = job.wait()
    assert (ended.status, ended.exit_code, ended.max_memory) == ("FAILED", 3, 64)
    assert job.status() == ended
    assert blocking.wait([job.id]) == [ended]
    assert blocking.tail(job.id) == b"on\n"
    assert blocking.list(limit=1)[0].id == job.id
    assert next(blocking.list_all()).id == job.id
    blocking.delete(job.id)
    with pytest.raises(NotFound, match=f"job not found: {job.id}"):
        blocking.status(job.id)


def test_a_stream_can_be_left(blocking: sync.Client) -> None:
    job = blocking.run("bash", "-c", "echo on; sleep 1000")
    with closing(job.logs()) as chunks:
        assert next(chunks) == b"on\n"
    with closing(blocking.events(job=job.id)) as events:
        assert next(events).job_id == job.id
    assert job.stop().status == "STOPPED"
    with pytest.raises(NotFound):
        list(blocking.logs("999999"))


def test_a_large_log_comes_whole_and_in_order(blocking: sync.Client) -> None:
    job = blocking.run("bash", "-c", "seq 1000000")
    assert b"".join(job.logs()) == b"".join(b"%d\n" % number for number in range(1, 1_000_001))


def test_a_workflow(blocking: sync.Client, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("jobs: {a: {command: 'true'}}\n")
    workflow = blocking.run_workflow(tmp_path / "w.yaml")
    assert [event.status for event in workflow.events()][-1] == "COMPLETED"
    assert workflow.wait().workflow.status == workflow.status().workflow.status == "COMPLETED"
    with pytest.raises(InvalidWorkflow):
        blocking.run_workflow("w.yaml", text="jobs: {}\n")


def test_threads_share_a_client(blocking: sync.Client) -> None:
    with ThreadPoolExecutor(4) as threads:
        jobs = list(threads.map(lambda number: blocking.run("echo", str(number)), range(8)))
        assert list(threads.map(lambda job: b"".join(job.logs()), jobs)) == [b"%d\n" % number for number in range(8)]


def test_closing_ends_what_is_under_way(config: ClientConfig) -> None:
    client = sync.Client(config)
    with client:
        job = client.run("sleep", "1000")
        logs = job.logs()
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(job.wait)
            reading = threads.submit(list, logs)
            client.events(job=job.id).__next__()  # by now the others are on their way
            client.close()
            for ended in (waiting, reading):
                with pytest.raises(JobletError):
                    ended.result()
    with pytest.raises(RuntimeError, match="the client is not open"):
        client.status(job.id)
    with client:  # once more
        client.stop(job.id)
    assert not [thread for thread in threading.enumerate() if thread.name == "joblet"]


def test_what_cannot_be_opened(config: ClientConfig) -> None:
    client = sync.Client(ClientConfig(config.server, "none.pem", config.key, config.ca))
    with pytest.raises(SettingsError, match=r"none\.pem"):
        client.__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "joblet"]


def test_every_method_is_there() -> None:
    def names(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert names(sync.Client) == names(AsyncClient)
    assert sync.Client.run.__doc__ == AsyncClient.run.__doc__

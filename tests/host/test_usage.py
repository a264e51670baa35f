"""What running jobs use, with a real server: StreamJobUsage, Client.usage and `rnx top`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock
from terminal import read_to_end, read_until

from joblet.client import Client, ClientConfig, JobUsage, NotFound, Unavailable, UsageSample, sync

BUSY = "while :; do :; done"


def settings(server: Server, name: str = "viewer") -> ClientConfig:
    folder = server.certificates
    return ClientConfig(
        f"localhost:{server.port}",
        *(str(folder / file) for file in (f"{name}-cert.pem", f"{name}-key.pem", "ca-cert.pem")),
    )


@pytest.fixture
async def viewer(server: Server) -> AsyncIterator[Client]:
    async with Client(settings(server)) as client:
        yield client


def stream(server: Server, stock: tuple[ModuleType, ModuleType], **fields: Any) -> Iterator[Any]:
    messages, stubs = stock
    with server.channel("viewer") as channel:
        yield from stubs.MonitoringServiceStub(channel).StreamJobUsage(messages.StreamJobUsageReq(**fields))


def of(sample: UsageSample, job_id: str) -> JobUsage:
    return next(job for job in sample.jobs if job.id == job_id)


async def test_samples_tell_what_a_job_uses(client: Stock, viewer: Client) -> None:
    command = f"dd if=/dev/zero of=f bs=1M count=8 oflag=direct 2>/dev/null; {BUSY}"
    job = client.started("bash", "-c", command, name="hog", maxCPU=40, maxMemory=64, maxProcesses=20)
    before: UsageSample | None = None
    async with aclosing(viewer.usage(job.id, interval=0.2)) as samples:
        async for sample in samples:
            used = of(sample, job.id)
            rates = sample.rates(before).get(job.id)
            if used.io_write_bytes and used.throttled_usec and rates and rates.cpu_percent:
                break
            before = sample
    client.stop(job.id)
    assert (used.name, used.command, used.args) == ("hog", "bash", ("-c", command))
    assert (used.max_cpu, used.max_memory, used.max_processes) == (40, 64, 20)
    assert (used.start_time, used.paused_by) == (job.startTime, "")
    assert used.cpu_usec
    assert used.memory_bytes
    assert 0 < used.memory_bytes <= (used.memory_peak_bytes or 0) <= 64 << 20
    assert used.processes is not None
    assert 2 <= used.processes <= 3
    assert used.io_write_bytes >= 8 << 20
    assert rates.cpu_percent < 90  # its limit is 40, and the host's clock is nobody's metronome


async def test_a_stream_of_some_jobs_ends_with_the_last_of_them(client: Stock, viewer: Client) -> None:
    other = client.started("sleep", "1000")
    jobs = [client.started("sleep", "1000").id for _ in range(2)]
    seen: list[set[str]] = []
    async with aclosing(viewer.usage([*jobs, jobs[0]], interval=60)) as samples:  # its end is told at once
        async for sample in samples:
            seen.append({job.id for job in sample.jobs})
            for job_id in jobs:
                await asyncio.to_thread(client.stop, job_id)
    assert seen == [set(jobs)]
    assert [sample async for sample in viewer.usage(jobs)] == []
    client.stop(other.id)


async def test_all_jobs_that_run_are_told_and_no_others(client: Stock, viewer: Client) -> None:
    ended, running = client.finish("true")[0].id, client.started("sleep", "1000").id
    async with aclosing(viewer.usage()) as samples:
        ids = [job.id for job in (await anext(samples)).jobs]
    assert running in ids
    assert ended not in ids
    client.stop(running)


def test_what_cannot_be_watched_is_refused(server: Server, stock: tuple[ModuleType, ModuleType]) -> None:
    refused = [
        ({"ids": ["999999"]}, grpc.StatusCode.NOT_FOUND, "job not found: 999999"),
        *(
            ({"intervalMs": interval}, grpc.StatusCode.INVALID_ARGUMENT,
             f"invalid intervalMs: {interval} (allowed 200 to 60000, or 0)")
            for interval in (-1, 199, 60_001, 2**62)
        ),
    ]  # fmt: skip
    for fields, code, sentence in refused:
        with pytest.raises(grpc.RpcError) as error:
            list(stream(server, stock, **fields))
        assert (error.value.code(), error.value.details()) == (code, sentence)


def test_the_synchronous_client_watches_too(server: Server, client: Stock) -> None:
    job = client.started("sleep", "1000")
    with sync.Client(settings(server)) as viewer:
        with pytest.raises(NotFound, match="job not found: 999999"):
            list(viewer.usage("999999"))
        samples = viewer.usage(job.id, interval=0.2)
        first, second = next(samples), next(samples)
        samples.close()
    assert 0.1 < (second.time - first.time).total_seconds() < 60
    client.stop(job.id)


def test_top_prints_a_table_of_two_samples(server: Server, client: Stock) -> None:
    jobs = [client.started(*command, name="top-test") for command in (("sleep", "1000"), ("bash", "-c", BUSY))]
    ids = [job.id for job in jobs]
    result = server.rnx("top", "--once", "--interval=300ms", *ids, name="viewer")
    assert (result.returncode, result.stderr) == (0, "")
    headings, *lines = result.stdout.splitlines()
    assert headings.split() == ["ID", "NAME", "COMMAND", "CPU", "%", "MEMORY", "PROCS", "READ/S", "WRITE/S", "TIME"]
    assert [line.split()[0] for line in lines] == ids[::-1]  # the busy one first
    assert re.search(
        r"top-test +bash -c while :; do :; done +[\d.]+/100 +[\d.]+[KM]/512M +\d +\d+ +\d+ +\d+s$", lines[0]
    )
    result = server.rnx("top", "--once", "--interval=300ms", "--sort=id", "--json", *ids)
    (told,) = map(json.loads, result.stdout.splitlines())
    assert [job["id"] for job in told["jobs"]] == ids
    assert told["jobs"][1]["cpuPercent"] > 0
    for job_id in ids:
        client.stop(job_id)
    result = server.rnx("top", *ids)
    assert (result.returncode, result.stdout) == (1, "")
    assert (
        result.stderr == f"Error: no such job runs: {ids[0]} {ids[1]} (for what an ended one has used: rnx status -v)\n"
    )


def test_a_paused_job_shows_so(server: Server, client: Stock) -> None:
    job_id = client.started("sleep", "1000").id
    assert server.rnx("pause", job_id).returncode == 0
    (told,) = server.rnx("top", "--once", "--interval=200ms", job_id).stdout.splitlines()[1:]
    assert told.split()[:4] == [job_id, "sleep", "1000", "paused"]
    client.stop(job_id)


def test_top_prints_lines_where_it_cannot_draw(server: Server, client: Stock) -> None:
    job = client.started("sleep", "1000")
    command = server.rnx_command("top", "--interval=200ms", job.id)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as top:
        assert top.stdout is not None
        assert top.stdout.readline().startswith("AT ")
        lines = [top.stdout.readline() for _ in range(2)]
        client.stop(job.id)
        rest, errors = top.communicate(timeout=PATIENCE)
    assert all(re.match(rf"\d\d:\d\d:\d\dZ  {job.id} .* sleep 1000 ", line) for line in (*lines, *rest.splitlines()))
    assert (top.returncode, errors) == (0, "")


def test_top_draws_over_a_restart_and_leaves_the_terminal_as_it_was(make_server: Callable[..., Server]) -> None:
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    ours, theirs = pty.openpty()
    view = subprocess.Popen(
        server.rnx_command("top", "--interval=200ms"),
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
    )
    os.close(theirs)
    try:
        read_until(ours, "0 jobs, 0 % of a core, 0; Ctrl-C ends the view")
        server.rnx("run", "sleep", "1000")
        read_until(ours, "1 job, ")
        server.kill()
        server.start()
        server.rnx("run", "sleep", "1001")
        read_until(ours, r"sleep 1001 [^;]*2 jobs, ")
        view.send_signal(signal.SIGINT)
        assert read_to_end(ours).endswith("\x1b[?25h")  # the cursor is back
        assert view.wait(PATIENCE) == 130
    finally:
        view.kill()
        view.wait(PATIENCE)
        os.close(ours)


def test_a_server_that_stops_ends_its_streams(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    with sync.Client(settings(server)) as viewer:
        samples = viewer.usage(interval=60)
        next(samples)
        assert server.stop() == 0
        with pytest.raises(Unavailable, match="server is shutting down"):
            next(samples)

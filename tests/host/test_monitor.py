"""How the server and its host are, with a real server: MonitoringService, the client, and `rnx monitor`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import aclosing
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock
from terminal import read_to_end, read_until

from joblet import __version__
from joblet.client import Client, ClientConfig, InvalidArgument, sync

HEADINGS = ["JOBS", "ENDED", "CPU", "MEMORY", "DISK", "NETWORK", "STREAMS", "STORE", "SERVER"]


def settings(server: Server, name: str = "viewer") -> ClientConfig:
    folder = server.certificates
    return ClientConfig(
        f"localhost:{server.port}",
        *(str(folder / file) for file in (f"{name}-cert.pem", f"{name}-key.pem", "ca-cert.pem")),
    )


def metrics(server: Server, stock: tuple[ModuleType, ModuleType], **fields: Any) -> Any:
    """The first sample that a stock client is sent."""
    messages, stubs = stock
    with server.channel("viewer") as channel:
        stream = stubs.MonitoringServiceStub(channel).StreamSystemMetrics(messages.StreamSystemMetricsReq(**fields))
        return next(stream)


def test_a_stock_client_is_told_of_all_parts(
    server: Server, client: Stock, stock: tuple[ModuleType, ModuleType]
) -> None:
    job = client.started("sleep", "1000")
    messages, stubs = stock
    with server.channel("viewer") as channel:
        status = stubs.MonitoringServiceStub(channel).GetSystemStatus(messages.EmptyRequest())
    assert (status.host.name, status.host.kernel) == (os.uname().nodename, os.uname().release)
    assert (status.host.cpus, status.host.fault) == (os.cpu_count(), "")
    assert status.host.bootTime < status.server.startTime
    assert (status.server.version, status.server.slots) == (__version__, 100)
    told = status.metrics
    assert told.cpu.busyUsec > 0
    assert told.cpu.jobsUsec > 0
    assert 0 < told.memory.jobs < told.memory.available <= told.memory.total
    assert 0 < told.disk.free <= told.disk.total
    assert told.jobs.running >= 1
    assert told.jobs.slotsUsed >= told.jobs.running
    assert told.jobs.ended.keys() >= {"completed", "lost", "out_of_memory"}
    assert told.streams.connections >= 1
    assert told.streams.calls >= 1
    assert told.store.changes >= told.store.commits > 0
    assert told.store.bytes > 0
    assert told.process.memory > 1 << 20
    assert told.process.threads > 1
    client.stop(job.id)


def test_only_what_is_asked_for_is_sent(server: Server, stock: tuple[ModuleType, ModuleType]) -> None:
    sample = metrics(server, stock, metricTypes=["store", "cpu"])
    assert [field.name for field, _ in sample.ListFields()] == ["time", "cpu", "store"]
    assert len(metrics(server, stock).ListFields()) == 9


def test_what_cannot_be_told_is_refused(server: Server, stock: tuple[ModuleType, ModuleType]) -> None:
    kinds = "cpu, memory, disk, network, jobs, streams, store, process"
    refused = [
        ({"metricTypes": ["cpu", "time"]}, f"invalid metricTypes: 'time' (allowed {kinds})"),
        ({"metricTypes": [""]}, f"invalid metricTypes: '' (allowed {kinds})"),
        *(
            ({"intervalSeconds": seconds}, f"invalid intervalSeconds: {seconds} (allowed 1 to 3600, or 0)")
            for seconds in (-1, 3601, 2**31 - 1)
        ),
    ]
    for fields, sentence in refused:
        with pytest.raises(grpc.RpcError) as error:
            metrics(server, stock, **fields)
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)


async def test_the_client_tells_samples_apart(server: Server) -> None:
    async with Client(settings(server)) as client:
        status = await client.system_status()
        async with aclosing(client.system_metrics(["cpu", "store"], interval=1)) as samples:
            first, second = await anext(samples), await anext(samples)
        with pytest.raises(InvalidArgument, match=r"invalid interval: 0 s \(allowed 1 to 3600\)"):
            await anext(client.system_metrics(interval=0))
    assert status.metrics.process is not None
    assert (first.process, first.memory) == (None, None)
    assert first.cpu is not None
    assert second.cpu is not None
    assert second.cpu.busy_usec >= first.cpu.busy_usec
    assert 0.5 < (second.time - first.time).total_seconds() < 60


def test_the_synchronous_client_does_too(server: Server) -> None:
    with sync.Client(settings(server)) as client:
        assert client.system_status().server.version == __version__
        samples = client.system_metrics("memory")
        assert next(samples).memory
        samples.close()


def test_monitor_prints_a_page_of_two_samples(server: Server) -> None:
    result = server.rnx("monitor", "--once", "--interval=1s", name="viewer")
    assert (result.returncode, result.stderr) == (0, "")
    title, empty, *lines = result.stdout.splitlines()
    assert re.fullmatch(rf"\S+: joblet {re.escape(__version__)}, up \w+; Linux \S+ \S+, \d+ CPUs?, up \w+", title)
    assert empty == ""
    assert [line.split()[0] for line in lines] == HEADINGS
    assert re.fullmatch(r"CPU +[\d.]+ % of a core, jobs [\d.]+ %; load [\d.]+ [\d.]+ [\d.]+", lines[2])


def test_monitor_prints_objects_for_programs(server: Server) -> None:
    result = server.rnx("monitor", "--once", "--json")
    (told,) = map(json.loads, result.stdout.splitlines())
    assert told["server"]["version"] == __version__
    assert told["metrics"]["cpu"]["busyUsec"] > 0
    assert "out_of_memory" in told["metrics"]["jobs"]["ended"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["metrics"]["time"])


def test_monitor_prints_lines_where_it_cannot_draw(server: Server) -> None:
    command = server.rnx_command("monitor", "--interval=1s")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        assert monitor.stdout.readline().split()[:4] == ["AT", "RUN", "WAIT", "CPU"]
        assert re.match(r"\d\d:\d\d:\d\d +\d+ +\d+ +[\d.]+ +[\d.]+ +[\d.]+[KMGT] ", monitor.stdout.readline())
        monitor.send_signal(signal.SIGINT)
    assert monitor.returncode == 130


@pytest.mark.parametrize("interval", ["1500ms", "2h"])
def test_monitor_takes_whole_seconds(server: Server, interval: str) -> None:
    result = server.rnx("monitor", f"--interval={interval}")
    assert result.returncode in (1, 2)
    assert re.fullmatch(r"Error: .*(not whole seconds: [\d.]+ s|allowed 1 to 3600).*\n", result.stderr)


def test_monitor_draws_and_leaves_the_terminal_as_it_was(server: Server) -> None:
    ours, theirs = pty.openpty()
    view = subprocess.Popen(
        server.rnx_command("monitor", "--interval=1s"),
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
    )
    os.close(theirs)
    try:
        read_until(ours, r"JOBS +\d+ of 100 run")
        read_until(ours, r"STORE[^;]* commits/s[^;]*; Ctrl-C ends the view")
        view.send_signal(signal.SIGINT)
        assert read_to_end(ours).endswith("\x1b[?25h")  # the cursor is back
        assert view.wait(PATIENCE) == 130
    finally:
        view.kill()
        view.wait(PATIENCE)
        os.close(ours)

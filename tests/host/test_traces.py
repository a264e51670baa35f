"""Spans of calls and jobs, as a collector of OpenTelemetry is sent them by a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP (HTTP, protobuf)."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resource: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Taker)

    def take(self, body: bytes) -> None:
        for each in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            for scope in each.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: Any) -> dict[str, Any]:
        return {each.name: each for each in self.spans if each.parent_span_id == span.span_id}


class _Taker(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_job_is_told_of_below_the_call_that_ordered_it(
    make_server: Callable[..., Server], collector: Collector, stock: tuple[ModuleType, ModuleType]
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    server = make_server(joblet={"maxConcurrentJobs": 1}).start(env=environment)
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.stub.RunJob(
            client.pb.RunJobReq(command="sh", args=["-c", "exit 3"], waitForStart=True, name="traced"),
            metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")],
        )
        poll_until(lambda: bool(collector.named("job sh")))
        (call,), (job,) = collector.named("joblet.JobletService/RunJob"), collector.named("job sh")
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
        assert (job.trace_id, job.parent_span_id) == (call.trace_id, call.span_id)
        assert attributes(call) == {
            "rpc.system": "grpc",
            "rpc.service": "joblet.JobletService",
            "rpc.method": "RunJob",
            "rpc.grpc.status_code": 0,
            "joblet.client": "admin",
        }
        told = attributes(job)
        assert told.pop("joblet.job.cpu_usec") > 0
        assert told.pop("joblet.job.memory_peak") > 0
        assert told == {
            "joblet.job.id": 1,
            "joblet.job.name": "traced",
            "joblet.job.owner": "admin",
            "joblet.job.status": "FAILED",
            "joblet.job.cause": "exit_code",
            "joblet.job.exit_code": 3,
            "joblet.job.attempt": 1,
        }
        assert (job.status.code, job.status.message) == (2, "exit code 3")
        parts = collector.children(job)
        assert list(parts) == ["queued", "launch", "run"]
        times = [time for part in parts.values() for time in (part.start_time_unix_nano, part.end_time_unix_nano)]
        assert times == sorted(times)
        assert (times[0], times[-1]) == (job.start_time_unix_nano, job.end_time_unix_nano)
        with pytest.raises(grpc.RpcError):
            client.status("77")
        long = client.started("sleep", "1000").id
        waiting = client.run("true").id
        poll_until(lambda: len(collector.named("joblet.JobletService/GetJobStatus")) == 1)
        (failed,) = collector.named("joblet.JobletService/GetJobStatus")
        assert (attributes(failed)["rpc.grpc.status_code"], failed.status.code) == (5, 0)  # not the server's fault
        client.stop(waiting)
        poll_until(lambda: bool(collector.named("job true")))
        assert list(collector.children(*collector.named("job true"))) == ["queued"]
    other = f"00-{TRACE[::-1]}-{PARENT}-01"
    assert server.rnx("run", "date", env={**os.environ, "TRACEPARENT": other}).returncode == 0
    assert server.rnx("list", env={**os.environ, "TRACEPARENT": "nonsense\n"}).returncode == 0
    poll_until(lambda: bool(collector.named("joblet.JobletService/ListJobs")))
    (listed,), (*_, run) = (collector.named(f"joblet.JobletService/{name}") for name in ("ListJobs", "RunJob"))
    assert (listed.parent_span_id, run.trace_id.hex(), run.parent_span_id.hex()) == (b"", TRACE[::-1], PARENT)
    server.kill()
    server.start(env={**environment, "OTEL_SERVICE_NAME": "other"})
    with server.channel() as channel:
        Stock(channel, *stock).stop(long)
    assert server.stop() == 0  # what is left is exported before the end
    (job,) = collector.named("job sleep")
    assert job.parent_span_id == b""
    assert list(collector.children(job)) == ["queued", "launch", "run"]
    assert collector.resource["service.name"] == "other"


def test_what_is_not_asked_for_is_not_loaded() -> None:
    program = "import joblet.server.app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert {name.split(".")[0] for name in done.stdout.split()} & {
        "opentelemetry",
        "prometheus_client",
        "psutil",
    } == set()

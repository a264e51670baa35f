"""Spans of calls and of jobs for OpenTelemetry. Loaded only where the environment asks for them.

A job's spans are made when it has ended, of the times in its record: they cost its life nothing, and are whole when it
has outlived a server. Its task inherits the context of the call that has ordered it (contextvars), and so its spans
have that call for their parent, until the server is restarted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import grpclib.server
from grpclib.const import Status as Code
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer

from joblet import __version__
from joblet.job import Job, State, cause_of
from joblet.server import auth

if TYPE_CHECKING:
    from grpclib._typing import IServerMethodFunc

_FAREWELL_SECONDS = 3.0
"""for what has not been exported when the server ends"""
_OURS = "/joblet."
"""begins the methods that are told of; health checks would be most of it"""
_OTLP = "otlp_proto_grpc", "otlp_proto_http"
_FAULTS = frozenset({Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS, Code.UNIMPLEMENTED})
"""statuses that are the server's fault"""


class CannotTrace(Exception):
    """Spans cannot be exported as the environment asks; the message says why."""


def provider_of(environment: Mapping[str, str]) -> TracerProvider:
    """What exports spans as the standard variables OTEL_* say; most of them the library reads. Raises CannotTrace."""
    provider = TracerProvider(resource=Resource.create({"service.version": __version__} | _name(environment)))
    provider.add_span_processor(BatchSpanProcessor(_exporter(environment)))
    return provider


def _name(environment: Mapping[str, str]) -> dict[str, str]:
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if named else {"service.name": "joblet"}


def _exporter(environment: Mapping[str, str]) -> SpanExporter:
    name = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if name == "otlp":
        protocols = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
        protocol = next((environment[each] for each in protocols if environment.get(each)), "http/protobuf")
        name = _OTLP[protocol != "grpc"]
    found = [*entry_points(group="opentelemetry_traces_exporter", name=name)]
    if not found:
        raise CannotTrace(f"there is no exporter {name!r}; install its package beside joblet")
    exporter: SpanExporter = found[0].load()()
    return exporter


def close(provider: TracerProvider) -> None:
    """Export what is left, for a short while. Blocks."""
    # Its own patience is longer when nobody takes the spans.
    closing = threading.Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(_FAREWELL_SECONDS)


def trace_calls(server: grpclib.server.Server, tracer: Tracer) -> None:
    """Tell of every call that is let in; its parent is what the client's metadata name (`traceparent`)."""

    async def on_request(event: RecvRequest) -> None:
        if event.method_name.startswith(_OURS):
            parent = propagate.extract({key: str(value) for key, value in event.metadata.items()})
            event.method_func = _traced(event.method_func, event.method_name, tracer, parent)

    listen(server, RecvRequest, on_request)


def _traced(method: IServerMethodFunc, name: str, tracer: Tracer, parent: context.Context) -> IServerMethodFunc:
    service, _, rpc = name.strip("/").partition("/")

    async def call(stream: grpclib.server.Stream[Any, Any]) -> None:
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": rpc,
            "joblet.client": auth.caller.get().name,
        }
        with tracer.start_as_current_span(
            f"{service}/{rpc}",
            parent,
            SpanKind.SERVER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            code = Code.OK
            try:
                await method(stream)
            except GRPCError as error:
                code = error.status
                raise
            except TimeoutError:
                code = Code.DEADLINE_EXCEEDED
                raise
            except BaseException:  # the client has gone
                code = Code.CANCELLED
                raise
            finally:
                span.set_attribute("rpc.grpc.status_code", code.value)
                if code in _FAULTS:
                    span.set_status(Status(StatusCode.ERROR, code.name))

    return call


def trace_job(tracer: Tracer, job: Job) -> None:
    """Tell of a job that has ended, with its parts: queued, launch and run."""
    begin, end = job.scheduled_at or job.created_at, job.ended_at
    if end is None or begin > end:  # it was stopped before its time
        return
    parent, links = context.get_current(), []
    if job.schedule_id is not None:  # which goes on for ever: each of its jobs is a story of its own
        links = [Link(trace.get_current_span(parent).get_span_context())]
        parent = context.Context()
    whole = tracer.start_span(f"job {job.command}", parent, attributes=_attributes(job), links=links, start_time=begin)
    if job.state is State.FAILED:
        whole.set_status(Status(StatusCode.ERROR, job.reason))
    inside = trace.set_span_in_context(whole, parent)
    parts = (("queued", begin, job.started_at), ("launch", job.started_at, job.exec_at), ("run", job.exec_at, end))
    for name, since, until in parts:
        if since is not None:
            tracer.start_span(name, inside, start_time=since).end(max(since, end if until is None else until))
    whole.end(end)


def _attributes(job: Job) -> dict[str, str | int]:
    """What helps to find it. Of its arguments nothing: they may be anything."""
    told: dict[str, str | int | None] = {
        "joblet.job.id": job.id,
        "joblet.job.name": job.name or None,
        "joblet.job.owner": job.owner,
        "joblet.job.status": str(job.state),
        "joblet.job.cause": str(cause_of(job)),
        "joblet.job.exit_code": job.exit_code,
        "joblet.job.attempt": job.attempt,
        "joblet.workflow.id": job.part.workflow_id if job.part else None,
        "joblet.schedule.id": job.schedule_id,
        "joblet.job.cpu_usec": job.receipt.cpu_usec if job.receipt else None,
        "joblet.job.memory_peak": job.receipt.memory_peak if job.receipt else None,
    }
    return {key: value for key, value in told.items() if value is not None}

"""When the server tells of its traces, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from typing import cast

import pytest
from grpclib.server import Server

import joblet.server
from joblet.runner import Runner
from joblet.server.telling import tell_traces

NOBODY = cast(Runner, object())
"""whom nobody is to ask anything"""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SERVICE_NAME": "joblet", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
async def test_nothing_is_told_that_nobody_asks_for(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert tell_traces(Server([]), NOBODY, environment) is None
    assert caplog.records == []


async def test_without_the_library_the_log_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "joblet.server.tracing", raising=False)
    monkeypatch.delattr(joblet.server, "tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tell_traces(Server([]), NOBODY, {"OTEL_TRACES_EXPORTER": "otlp"}) is None
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "traces cannot be told: opentelemetry is not installed (pip install 'joblet[otel]')"
    ]


async def test_an_unknown_exporter_is_named(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("opentelemetry.sdk")
    assert tell_traces(Server([]), NOBODY, {"OTEL_TRACES_EXPORTER": "pigeon"}) is None
    (record,) = caplog.records
    assert record.message == "traces cannot be told"
    assert record.__dict__["joblet_fields"] == {
        "error": "there is no exporter 'pigeon'; install its package beside joblet"
    }


async def test_a_collector_that_takes_nothing_keeps_no_server_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    from joblet.server import tracing

    asked, answered = threading.Event(), threading.Event()

    class Stuck(export.SpanExporter):  # type: ignore[misc]
        def export(self, spans: Sequence[object]) -> object:
            asked.set()
            answered.wait(60)
            return export.SpanExportResult.SUCCESS

    monkeypatch.setattr(tracing, "_FAREWELL_SECONDS", 0.05)
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(Stuck()))
    provider.get_tracer("test").start_span("one").end()
    async with asyncio.timeout(30):
        await asyncio.to_thread(tracing.close, provider)
    assert not answered.is_set()
    answered.set()
    assert asked.wait(30)

"""Which trace the client says that a call belongs to."""

from __future__ import annotations

import sys

import pytest
from grpclib.events import SendRequest
from multidict import MultiDict

from joblet.client._trace import _on_request

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def sent() -> dict[str, object]:
    event = SendRequest(
        metadata=MultiDict(), method_name="/joblet.JobletService/RunJob", deadline=None, content_type=""
    )
    await _on_request(event)
    return dict(event.metadata)


@pytest.mark.parametrize(
    ("variable", "metadata"),
    [(GIVEN, {"traceparent": GIVEN}), ("", {}), (GIVEN + "\n", {}), (GIVEN.upper(), {}), ("00-0-0-01", {})],
)
async def test_what_the_environment_names_is_sent_if_it_has_the_form(
    monkeypatch: pytest.MonkeyPatch, variable: str, metadata: dict[str, str]
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate", raising=False)
    monkeypatch.setenv("TRACEPARENT", variable)
    assert await sent() == metadata


async def test_a_program_with_spans_sends_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.propagate")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    assert await sent() == {}  # outside of any span
    with sdk.TracerProvider().get_tracer("test").start_as_current_span("mine") as span:
        context = span.get_span_context()
        (name, value), *more = (await sent()).items()
    assert (name, more) == ("traceparent", [])
    assert str(value).startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")

"""Tells the server which trace a call belongs to."""

from __future__ import annotations

import os
import re
import sys

from grpclib.client import Channel
from grpclib.events import SendRequest, listen

_VARIABLE = "TRACEPARENT"
"""in which whoever has started this program names its span, as pipelines do (W3C Trace Context's form)"""
_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def tell_trace(channel: Channel) -> None:
    """From now on send with every call the program's own span, if it uses OpenTelemetry, or that of who started it."""
    listen(channel, SendRequest, _on_request)


async def _on_request(event: SendRequest) -> None:
    named: dict[str, str] = {}
    if (propagate := sys.modules.get("opentelemetry.propagate")) is not None:
        propagate.inject(named)
    elif _FORM.fullmatch(given := os.environ.get(_VARIABLE, "")):
        named = {"traceparent": given}
    event.metadata.update(named)

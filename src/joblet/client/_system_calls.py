"""The part of the client that is about the server and its host."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import cast

from joblet.client._calls import Calls, check_text
from joblet.client.errors import InvalidArgument
from joblet.client.system import SystemMetrics, SystemStatus, metrics_of, status_of
from joblet.proto import joblet as pb

_MOST_SECONDS = 3600


class SystemCalls(Calls):
    """Ask a server how it is."""

    async def system_status(self) -> SystemStatus:
        """How the server and its host are now."""
        with self._errors():
            return status_of(await pb.MonitoringServiceStub(self._open_channel).get_system_status(pb.EmptyRequest()))

    async def system_metrics(
        self, kinds: str | Iterable[str] = (), *, interval: int = 5, reconnect: bool = False
    ) -> AsyncGenerator[SystemMetrics]:
        """How the server and its host are, `interval` seconds apart (1 to 3600), the first time at once, for ever.

        `kinds` are names of the fields of SystemMetrics, such as `cpu`; without any, all are told. A consumer that is
        slow misses samples. With `reconnect` it goes on when the server is restarted meanwhile; raises ConnectionLost
        when the server stays away for `config.patience` seconds. Use contextlib.aclosing to leave early and at once.

        Raises InvalidArgument for another kind or interval.
        """
        wanted = [kinds] if isinstance(kinds, str) else list(kinds)
        check_text("kind", *wanted)
        if not 1 <= interval <= _MOST_SECONDS:
            raise InvalidArgument(f"invalid interval: {interval} s (allowed 1 to {_MOST_SECONDS})")
        request = pb.StreamSystemMetricsReq(interval_seconds=interval, metric_types=wanted)
        async with aclosing(self._resumed(lambda: self._metrics(request), reconnect=reconnect)) as samples:
            async for sample in samples:
                yield sample

    async def _metrics(self, request: pb.StreamSystemMetricsReq) -> AsyncGenerator[SystemMetrics]:
        stream = pb.MonitoringServiceStub(self._open_channel).stream_system_metrics(request)
        with self._errors():
            async with aclosing(cast("AsyncGenerator[pb.SystemMetricsRes]", stream)) as samples:
                async for sample in samples:
                    yield metrics_of(sample)

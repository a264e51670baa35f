"""The part of the client that is about what running jobs use."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import cast

from joblet.client._calls import Calls, check_text
from joblet.client.errors import InvalidArgument
from joblet.client.usage import UsageSample, sample_of
from joblet.proto import joblet as pb

_MOST_SECONDS = 60.0


class UsageCalls(Calls):
    """Watch what running jobs use."""

    async def usage(
        self, job_ids: str | Iterable[str] = (), *, interval: float = 1.0, reconnect: bool = False
    ) -> AsyncGenerator[UsageSample]:
        """What running jobs use, `interval` seconds apart (0.2 to 60), the first time at once.

        Without ids of all jobs, for ever; otherwise of these only, those of them that run, until the last has ended.
        UsageSample.rates tells from two samples how fast. A consumer that is slow misses samples.

        With `reconnect` it goes on when the server is restarted meanwhile; raises ConnectionLost when the server stays
        away for `config.patience` seconds. Use contextlib.aclosing to leave early and at once.

        Raises NotFound at once when the server does not know one of them, InvalidArgument for another interval.
        """
        ids = [job_ids] if isinstance(job_ids, str) else list(dict.fromkeys(job_ids))
        check_text("id", *ids)
        if not 0 < interval <= _MOST_SECONDS:
            raise InvalidArgument(f"invalid interval: {interval} s (allowed 0.2 to {_MOST_SECONDS:g})")
        request = pb.StreamJobUsageReq(ids=ids, interval_ms=max(1, round(interval * 1000)))
        async with aclosing(self._resumed(lambda: self._samples(request), reconnect=reconnect)) as samples:
            async for sample in samples:
                yield sample

    async def _samples(self, request: pb.StreamJobUsageReq) -> AsyncGenerator[UsageSample]:
        stub = pb.MonitoringServiceStub(self._open_channel)
        with self._errors():
            async with aclosing(cast("AsyncGenerator[pb.UsageSample]", stub.stream_job_usage(request))) as samples:
                async for sample in samples:
                    yield sample_of(sample)

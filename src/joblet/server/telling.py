"""Wires what tells others how the server is, where the configuration asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from grpclib.server import Server

from joblet.config import Config
from joblet.job import Job
from joblet.log import fields
from joblet.runner import Runner
from joblet.server.figures import Parts
from joblet.server.lag import Lag

log = logging.getLogger(__name__)

_TRACES = "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
"""variables of the environment that ask for spans"""


def tell_metrics(
    parts: Parts, settings: Config, base: Path, expiries: Callable[[], Mapping[str, datetime]]
) -> Callable[[], None]:
    """Begin to answer Prometheus; a function that ends it.

    `base` is the configuration's directory, `expiries` gives the ends of certificates by what they are.
    Where it cannot listen, a line in the log says so, and the server works as ever: else a job that has taken the port
    while the server was away could keep it away.
    """
    from joblet.server.metrics import Sources, registry_of
    from joblet.server.scrape import CannotListen, Exposition, asked_of

    with contextlib.ExitStack() as stack:
        lag = Lag()
        stack.callback(lag.close)
        sources = Sources(
            figures=asked_of(asyncio.get_running_loop(), parts.figures),
            lag=lag.seconds,
            total_usage=parts.executor.total_usage,
            log_path=parts.executor.log_path,
            expiries=expiries,
            state_dir=parts.state_dir,
            store_sizes=parts.database.sizes,
        )
        listen = settings.metrics.listen
        if listen.startswith("unix:"):
            listen = f"unix:{base / listen.removeprefix('unix:')}"
        try:
            exposition = Exposition(listen, registry_of(sources))
        except CannotListen as error:
            log.error("metrics cannot be told", extra=fields(error=str(error)))
            return lambda: None
        stack.callback(exposition.close)
        return stack.pop_all().close


def tell_traces(server: Server, runner: Runner, environment: Mapping[str, str]) -> Callable[[], Awaitable[None]] | None:
    """Begin to tell OpenTelemetry of calls and jobs, if the environment asks for that; a function that ends it.

    To be called when the gate listens to the server: what that refuses is not told of. Where something is missing for
    it, a line in the log says so, and the server works as ever.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not any(environment.get(name) for name in _TRACES):
        return None
    try:
        from joblet.server import tracing

        provider = tracing.provider_of(environment)
    except ImportError:
        log.warning("traces cannot be told: opentelemetry is not installed (pip install 'joblet[otel]')")
        return None
    except Exception as error:  # an exporter raises whatever it makes of its variables
        log.warning("traces cannot be told", extra=fields(error=str(error)))
        return None
    tracer = provider.get_tracer("joblet")
    tracing.trace_calls(server, tracer)
    before = runner.on_end

    def on_end(job: Job) -> None:
        before(job)
        tracing.trace_job(tracer, job)

    runner.on_end = on_end
    log.info("traces are told", extra=fields(exporter=exporter or "otlp"))
    return partial(asyncio.to_thread, tracing.close, provider)

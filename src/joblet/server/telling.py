"""Wires what tells others how the server is, where the configuration asks for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from joblet.config import Config
from joblet.server.figures import Parts
from joblet.server.lag import Lag
from joblet.server.state import StartError
from joblet.server.tls import expiries


def tell_metrics(parts: Parts, settings: Config, base: Path) -> Callable[[], None]:
    """Begin to answer Prometheus; a function that ends it. Raises StartError.

    `base` is the configuration's directory.
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
            expiries=lambda: expiries(settings.security, base),
            state_dir=parts.state_dir,
            store_sizes=parts.database.sizes,
        )
        listen = settings.metrics.listen
        if listen.startswith("unix:"):
            listen = f"unix:{base / listen.removeprefix('unix:')}"
        try:
            exposition = Exposition(listen, registry_of(sources))
        except CannotListen as error:
            raise StartError(str(error)) from None
        stack.callback(exposition.close)
        return stack.pop_all().close

"""Counts calls: how they end, and how long those take that are one question and one answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpclib.server
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError

from joblet.measures import CallMeasures

if TYPE_CHECKING:
    from grpclib._typing import IServerMethodFunc


def measured(method: IServerMethodFunc, name: str, measures: CallMeasures) -> IServerMethodFunc:
    """A handler, and its calls counted under `name`. It raises what grpclib makes the status of."""

    async def call(stream: grpclib.server.Stream[Any, Any]) -> None:
        began = time.perf_counter()
        status = "UNKNOWN"
        measures.under_way[name] += 1
        try:
            await method(stream)
            status = "OK"
        except GRPCError as error:
            status = error.status.name
            raise
        except (asyncio.CancelledError, StreamTerminatedError):
            status = "CANCELLED"
            raise
        except TimeoutError:
            status = "DEADLINE_EXCEEDED"
            raise
        finally:
            measures.under_way[name] -= 1
            measures.ended[name, status] += 1
            if stream._cardinality is Cardinality.UNARY_UNARY:
                measures.took(name, time.perf_counter() - began)

    return call

"""What all jobs live with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from joblet.admission import Admission
from joblet.executor.base import Executor
from joblet.logs import LogHub
from joblet.measures import JobMeasures
from joblet.quotas import Quotas
from joblet.store import Store
from joblet.timetable import Timetable


@dataclass(slots=True)
class Surroundings:
    """What jobs live with, the same for all. The mutable state is that the server is closing."""

    store: Store
    executor: Executor
    admission: Admission
    hub: LogHub
    on_isolation_failure: Callable[[], Awaitable[None]]
    """told of a launch that failed for what the host lacks"""
    timetable: Timetable = field(default_factory=Timetable)
    quotas: Quotas = field(default_factory=Quotas)
    measures: JobMeasures = field(default_factory=JobMeasures)
    closing: bool = False
    """jobs go on, and nobody follows them any more"""

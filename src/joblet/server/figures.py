"""What the parts of a server count, taken together at one moment, for those who tell it further."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from joblet import clock
from joblet.admission import Admission
from joblet.engine import Engine
from joblet.executor.local import LocalExecutor
from joblet.job import Cause, State
from joblet.logs import LogHub
from joblet.measures import CallMeasures, ConnectionMeasures, Histogram
from joblet.runner import Runner
from joblet.store import Database
from joblet.workflow.plan import WorkflowState

LIVE = tuple(state for state in State if not state.final)
"""the states of jobs that have not ended"""
LIVE_WORKFLOWS = tuple(state for state in WorkflowState if not state.final)


@dataclass(frozen=True, slots=True)
class Figures:
    """A copy of what is counted: nothing in it changes any more. Instants are nanoseconds since the epoch."""

    jobs: Mapping[State, int]
    """that have not ended"""
    paused: int
    running: tuple[int, ...]
    """ids of the jobs whose command runs"""
    host_error: str
    """why this host can run no jobs; empty when it can"""
    ended: Mapping[Cause, int]
    queue_wait: Histogram
    launch: Histogram
    log_bytes: int
    log_lost: int
    slots: int
    slots_taken: int
    queue_places: int
    queue_counted: int
    queue_waiting: int
    schedules: int
    """jobs that make others at the times of a cron expression"""
    next_time: int | None
    """the earliest time that a job waits for"""
    overdue: int
    """jobs whose time has passed, and that still wait for it"""
    workflows: Mapping[WorkflowState, int]
    """that have not ended"""
    workflows_ended: Mapping[WorkflowState, int]
    followers: int
    """of logs"""
    followers_behind: int
    """those of them that read what lies before the log's end"""
    fallen_behind: int
    log_sent: int
    calls_ended: Mapping[tuple[str, str], int]
    calls_under_way: Mapping[str, int]
    call_seconds: Mapping[str, Histogram]
    connections: int
    connections_most: int
    connections_ended: int
    handshakes: int
    handshake_failures: Mapping[str, int]
    connections_refused: Mapping[str, int]
    commit_seconds: Histogram
    commit_changes: Histogram
    commit_failures: int
    commit_waiting: int
    damaged: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that count."""

    runner: Runner
    admission: Admission
    engine: Engine
    hub: LogHub
    database: Database
    calls: CallMeasures
    connections: ConnectionMeasures
    executor: LocalExecutor
    state_dir: Path

    def figures(self) -> Figures:
        """As of now; to be called on the event loop. Takes a moment for each job that has not ended, and no more."""
        jobs = self.runner.unended()
        around, store, connections = self.runner.around, self.database.measures, self.connections
        live, behind = self.hub.followers
        return Figures(
            jobs={**dict.fromkeys(LIVE, 0), **Counter(job.state for job in jobs)},
            paused=sum(bool(job.paused_by) for job in jobs),
            running=tuple(job.id for job in jobs if job.state is State.RUNNING),
            host_error=str(self.runner.host_error or ""),
            ended=around.measures.ended.copy(),
            queue_wait=around.measures.queue_wait.copy(),
            launch=around.measures.launch.copy(),
            log_bytes=around.measures.log_bytes,
            log_lost=around.measures.log_lost,
            slots=self.admission.slots,
            slots_taken=self.admission.taken,
            queue_places=self.admission.places,
            queue_counted=self.admission.counted,
            queue_waiting=self.admission.waiting,
            schedules=sum(job.recurring for job in jobs),
            next_time=around.timetable.next_time,
            overdue=around.timetable.overdue(clock.now_ns()),
            workflows={**dict.fromkeys(LIVE_WORKFLOWS, 0), **self.engine.states()},
            workflows_ended=self.engine.ended.copy(),
            followers=live + behind,
            followers_behind=behind,
            fallen_behind=self.hub.fallen_behind,
            log_sent=self.hub.sent,
            calls_ended=self.calls.ended.copy(),
            calls_under_way=self.calls.under_way.copy(),
            call_seconds={method: histogram.copy() for method, histogram in self.calls.seconds.items()},
            connections=connections.open,
            connections_most=connections.most,
            connections_ended=connections.ended,
            handshakes=connections.handshakes,
            handshake_failures=connections.failures.copy(),
            connections_refused=connections.refused.copy(),
            commit_seconds=store.seconds.copy(),
            commit_changes=store.changes.copy(),
            commit_failures=store.failures,
            commit_waiting=self.database.waiting,
            damaged=self.database.damaged,
        )

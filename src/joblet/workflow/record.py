"""A workflow as it is stored, and what has happened. Instants are nanoseconds since the epoch. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.job import Job
from joblet.workflow.condition import End
from joblet.workflow.plan import WorkflowState


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow, without its steps."""

    id: int
    file: str
    """the name of its file, for people to know it by"""
    owner: str
    """CN of the client that submitted it"""
    role: str
    """of that client, whose ceilings hold for its jobs"""
    state: WorkflowState
    created_at: int
    name: str = ""
    """the file's own name for it"""
    yaml: str = ""
    """its file, with the values of secrets masked"""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """their values, those of secret ones masked"""
    uploads: str = ""
    """folder of its files in the store of uploads; empty for none"""
    key: str = ""
    """the client's own name for the order"""
    fingerprint: str = ""
    """tells two orders with the same key apart"""
    started_at: int | None = None
    """when its first job was"""
    ended_at: int | None = None
    reason: str = ""
    stop_reason: str = ""
    """why it was asked to stop; set before anything is stopped"""
    timeout: float = 0.0
    """seconds from when it was accepted, or tried again; 0 is no bound"""
    max_parallel: int = 0
    timer_from: int = 0
    """when it was accepted, or last tried again"""
    total: int = 0
    """steps, and of these: """
    completed: int = 0
    failed: int = 0
    stopped: int = 0
    canceled: int = 0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step has come to, as far as its job's own record does not say so."""

    position: int
    name: str
    end: End | None = None
    attempts: int = 0
    """that have been concluded"""
    base_attempts: int = 0
    """of these, those from before the workflow was last tried again: a limit of retries counts from there"""
    job_id: int | None = None
    """of the last attempt that was concluded"""
    started_at: int | None = None
    ended_at: int | None = None
    exit_code: int = 0
    reason: str = ""
    retry_at: int | None = None
    """when it is tried again"""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step as it is shown."""

    record: StepRecord
    job: Job | None
    """of the attempt that is under way, or has ended and not been concluded yet; its secrets masked"""
    condition: str
    """as an expression; empty when it requires nothing"""
    dependencies: tuple[str, ...]
    """the steps that its condition speaks of"""
    max_attempts: int
    """counted as its attempts are"""
    continue_on_failure: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A workflow with its steps at one moment."""

    workflow: Workflow
    steps: tuple[StepStatus, ...]
    """in the file's order"""
    sequence: int
    """of the newest event then; what happens later has a higher one"""


@dataclass(frozen=True, slots=True)
class Event:
    """A job, or a workflow, or a step that has no job, has come to a status."""

    sequence: int
    at: int
    status: str
    workflow_id: int | None = None
    job_id: int | None = None
    name: str = ""
    """of the job or step; empty for the workflow itself"""
    exit_code: int = 0
    reason: str = ""
    attempt: int = 0
    """of a workflow's job; of a step that waits (PENDING without a job), the one that it waits for"""
    owner: str = ""
    """of the job or workflow"""

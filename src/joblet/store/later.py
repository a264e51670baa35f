"""Jobs that come of other jobs: the next attempt of one that failed, those of a recurring schedule.

Each function is part of a change of the database: what it does is done with the rest of that, or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from joblet.job import TIMEOUT, State
from joblet.store.rows import ALL_COLUMNS

UNFINISHED = "state IN ('SCHEDULED', 'PENDING', 'INITIALIZING', 'RUNNING')"
"""as the index jobs_unfinished has it"""

_ORDER = (
    "command, args, max_cpu, max_memory, max_iobps, max_processes, max_open_files, max_disk, cpu_cores, timeout_ms, "
    "priority, owner, role, name, environment, secret_names, secrets, workdir, uploads, labels, retries, "
    "retry_delay_ms, takes_input, terminal, separate_streams"
)
"""what such a job has of the other: all that was asked for, but for the key, which names that one"""


def add_attempt(connection: sqlite3.Connection, job_id: int, now: int, retry_at: int) -> tuple[Any, Any] | None:
    """Make the next attempt of a job that has ended, SCHEDULED for `retry_at`: the rows of both, with ALL_COLUMNS.

    None when its end was asked for, as may have been stored after it had come to another.
    """
    (stop_reason,) = connection.execute("SELECT stop_reason FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if stop_reason and not stop_reason.startswith(TIMEOUT):
        return None
    following = connection.execute(
        f"INSERT INTO jobs ({_ORDER}, state, created_at, scheduled_at, schedule_id, tries, retry_of) "
        f"SELECT {_ORDER}, ?, ?, ?, schedule_id, tries + 1, coalesce(retry_of, id) FROM jobs WHERE id = ? "
        f"RETURNING {ALL_COLUMNS}",
        (State.SCHEDULED, now, retry_at, job_id),
    ).fetchone()
    ended = connection.execute(
        f"UPDATE jobs SET retried_by = ? WHERE id = ? RETURNING {ALL_COLUMNS}", (following[0], job_id)
    ).fetchone()
    return ended, following


def set_next(connection: sqlite3.Connection, schedule_id: int, due: int, following: int) -> bool:
    """Set the next time of a recurring schedule; False when it was not `due`, has ended or is to end."""
    row = connection.execute(
        "UPDATE jobs SET scheduled_at = ? WHERE id = ? AND scheduled_at = ? AND state = ? AND stop_reason = '' "
        "RETURNING id",
        (following, schedule_id, due, State.SCHEDULED),
    ).fetchone()
    return row is not None


def add_run(connection: sqlite3.Connection, schedule_id: int, time: int, now: int, *, queued: bool) -> Any:
    """Make the job of one of a recurring schedule's times, SCHEDULED: its row, with ALL_COLUMNS."""
    return connection.execute(
        f"INSERT INTO jobs ({_ORDER}, state, created_at, scheduled_at, schedule_id, queued) "
        f"SELECT {_ORDER}, ?, ?, ?, id, ? FROM jobs WHERE id = ? RETURNING {ALL_COLUMNS}",
        (State.SCHEDULED, now, time, queued, schedule_id),
    ).fetchone()


def replaced(job_id: int) -> str:
    """Why a job is stopped that another one of its schedule replaces."""
    return f"replaced by job {job_id}"


def replace_runs(connection: sqlite3.Connection, schedule_id: int, new: Sequence[int]) -> None:
    """Record of the unfinished jobs of a recurring schedule, but for the new ones, that they are to be stopped."""
    marks = ", ".join("?" * len(new))
    connection.execute(
        f"UPDATE jobs SET stop_reason = ? WHERE schedule_id = ? AND stop_reason = '' AND {UNFINISHED} "
        f"AND id NOT IN ({marks})",
        (replaced(new[-1]), schedule_id, *new),
    )

"""Who may do what: the operations, the roles that there always are, and what can be said of others. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

READ = frozenset(
    {
        *("get_job", "list_jobs", "get_job_logs", "watch_usage"),
        *("get_system_status", "stream_system_metrics"),
        *("get_workflow", "list_workflows", "watch_events"),
        *("health", "reflection"),
    }
)
WRITE = frozenset(
    {
        *("run_job", "stop_job", "set_job_timeout", "delete_job", "delete_all_jobs"),
        *("pause_job", "resume_job", "send_job_input", "exec_in_job", "upload_files", "read_files"),
        *("run_workflow", "stop_workflow", "retry_workflow", "delete_workflow"),
    }
)
OPERATIONS = READ | WRITE

UNKNOWN = "unknown"
"""what the role is called of a client that has none here"""

_ROLE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_MAX_CLIENT_NAME = 64
"""characters (ub-common-name of X.520)"""


@dataclass(frozen=True, slots=True)
class Quota:
    """What the jobs and workflows of one client that have not ended may come to together; None is any number."""

    jobs: int | None = None
    cpu: int | None = None
    """percent of one core: the sum of their limits"""
    memory: int | None = None
    """MB: the sum of their limits"""
    workflows: int | None = None
    """of which the jobs count when they are started"""


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class Role:
    """What the clients of a role may do."""

    operations: frozenset[str]
    own: bool = False
    """only with jobs and workflows that a client of the same name has ordered; there are no others for them"""
    quota: Quota = NO_QUOTA

    @property
    def by_name(self) -> bool:
        """Whether it matters who the client is."""
        return self.own or self.quota != NO_QUOTA


ROLES: Mapping[str, Role] = {"admin": Role(READ | WRITE), "viewer": Role(READ)}
"""Those of the specification. What is not here is denied."""


def is_role_name(text: str) -> bool:
    """Whether a role may be called so: `a-z`, `0-9`, `_` and `-`, a letter first, at most 64 characters."""
    return bool(_ROLE_NAME.fullmatch(text)) and text != UNKNOWN


def is_client_name(text: str) -> bool:
    """Whether a client may be told from others by this name: 1 to 64 printable characters, no space at either end."""
    return 0 < len(text) <= _MAX_CLIENT_NAME and text.isprintable() and text == text.strip()

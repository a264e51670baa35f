"""The ids of jobs and workflows as clients write them. No I/O."""

from __future__ import annotations

from joblet.errors import JobNotFound, WorkflowNotFound


def parse_id(text: str) -> int:
    """The number of a job id. Raises JobNotFound for a text that no job's id can be."""
    if not _is_id(text):
        raise JobNotFound(text)
    return int(text)


def parse_workflow_id(text: str) -> int:
    """The number of a workflow's id. Raises WorkflowNotFound for a text that no workflow's id can be."""
    if not _is_id(text):
        raise WorkflowNotFound(text)
    return int(text)


def _is_id(text: str) -> bool:
    """Whether a job or a workflow may have this id."""
    return text.isascii() and text.isdecimal() and len(text) <= 18 and text == str(int(text))

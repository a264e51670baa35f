"""One attempt of a step: what it asks for, with the outputs of what it requires, and what it came to. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from joblet.job import TIMEOUT, Job, Part, Uploads
from joblet.order import Order
from joblet.workflow import template
from joblet.workflow.condition import End
from joblet.workflow.plan import Step
from joblet.workflow.record import StepRecord, Workflow

MOST_VARIABLES = 256 << 10
"""bytes of environment that the outputs of what a step requires may take; execve(2) has a bound for all"""


class OutputsTooLarge(Exception):
    """What is required has written more than a job can be given."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the outputs of what it requires take {size} bytes of environment (at most {MOST_VARIABLES})")


def order_of(
    workflow: Workflow, step: Step, position: int, attempt: int, outputs: Mapping[str, Mapping[str, str]]
) -> Order:
    """What an attempt of a step asks for. `outputs` are those of the steps that it requires, by name and key.

    Raises MissingOutput, OutputsTooLarge or, when a secret cannot be opened, StoreFailed.
    """
    given = template.variables(outputs)
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in given.items())
    if size > MOST_VARIABLES:
        raise OutputsTooLarge(size)

    def filled(texts: Mapping[str, str]) -> dict[str, str]:
        return {name: template.fill(text, outputs) for name, text in texts.items()}

    return replace(
        step.order,
        args=tuple(template.fill(arg, outputs) for arg in step.order.args),
        environment=given | filled(step.order.environment),
        secret_environment=filled(step.order.secret_environment),
        name=step.name,
        part=Part(workflow.id, position, attempt),
        uploads=Uploads(workflow.uploads, step.uploads) if step.uploads else None,
    )


def concluded(record: StepRecord, job: Job) -> StepRecord:
    """What a step has come to with the job of its last attempt, but for whether that is its end."""
    assert job.part is not None
    return replace(
        record,
        attempts=job.part.attempt,
        job_id=job.id,
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        reason=job.reason,
        retry_at=None,
        outputs=job.outputs,
    )


def last_end(record: StepRecord) -> End:
    """How the last attempt of a step ended that is to be tried again."""
    return End.STOPPED if record.reason.partition(": ")[2].startswith(TIMEOUT) else End.FAILED

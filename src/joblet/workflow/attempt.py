"""What one attempt of a step asks for: its order, with the outputs of the steps that it requires. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from joblet.job import Part, Uploads
from joblet.order import Order
from joblet.workflow import template
from joblet.workflow.plan import Step
from joblet.workflow.record import Workflow

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

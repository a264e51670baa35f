"""The order in which a workflow's jobs would start: `rnx run --workflow=FILE --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from joblet.command_line import one_line
from rnx.columns import cells, padded
from rnx.graph.model import is_plain

if TYPE_CHECKING:
    from joblet.workflow.plan import Decision, Plan, Step


def waves(plan: Plan) -> tuple[list[list[int]], dict[int, str]]:
    """The positions of those that start together if all complete, and why the others do not start at all.

    A wave begins when all of the one before have ended; `max_parallel` bounds it.
    """
    from joblet.workflow.condition import End
    from joblet.workflow.plan import Cancel, Schedule, Start

    schedule = Schedule(plan)
    found: list[list[int]] = []
    left_out: dict[int, str] = {}
    decisions: list[Decision] = schedule.begin()
    while decisions:
        wave = [decision.position for decision in decisions if isinstance(decision, Start)]
        left_out.update((decision.position, decision.reason) for decision in decisions if isinstance(decision, Cancel))
        found += [sorted(wave)] if wave else []
        decisions = [decision for position in wave for decision in schedule.ended(position, End.COMPLETED)]
    return found, left_out


def dry_run(file: str, plan: Plan) -> str:
    """What the command prints."""
    found, left_out = waves(plan)
    width = max((len(cells(one_line(step.name))) for step in plan.steps), default=0)
    count, number = len(plan.steps), len(found)
    text = f"{one_line(file)}: {_number(count, 'job')} in {_number(number, 'wave')}, if all complete\n"
    for place, wave in enumerate(found, 1):
        text += f"\nWave {place}:\n" + "".join(_line(plan.steps[position], width) for position in wave)
    if left_out:
        text += "\nNot started:\n" + "".join(_line(plan.steps[position], width) for position in sorted(left_out))
    return text


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _line(step: Step, width: int) -> str:
    if is_plain(step.condition):
        what = f"after {', '.join(step.dependencies)}" if step.dependencies else ""
    else:
        what = f"if {step.condition}"
    return f"  {padded(one_line(step.name), width)}  {one_line(what)}".rstrip() + "\n"

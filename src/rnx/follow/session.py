"""A client, a screen, and what goes from one to the other."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import typer

from joblet.command_line import FAILURE, write
from rnx.follow.logs import Logs
from rnx.follow.screen import Screen, ending, open_screen
from rnx.follow.view import WAITING, View

if TYPE_CHECKING:
    from joblet.client import Client, Workflow, WorkflowStatus

STOPPED = 3
STATUSES = {"COMPLETED": 0, "FAILED": FAILURE, "STOPPED": STOPPED, "CANCELED": STOPPED}
"""the exit status that says how the workflow has ended"""


async def follow(client: Client, workflow_id: str, *, logs: bool = False, whole: bool = False) -> None:
    """Show a workflow until it has ended; with `logs` what its jobs write, `whole` from its first event on.

    A restart of the server does not end it. Raises typer.Exit with the status that says how the workflow has ended.
    """
    status = await client.workflow(workflow_id)
    try:
        async with AsyncExitStack() as stack:
            screen = await stack.enter_async_context(open_screen())
            reader = await stack.enter_async_context(Logs(client, screen)) if logs else None
            ended = await _watch(client, status, screen, reader, after=0 if whole else status.sequence)
    except asyncio.CancelledError:
        _tell_that_it_goes_on(workflow_id)
        raise
    raise typer.Exit(STATUSES.get(ended, FAILURE))


async def wait_for(workflow: Workflow) -> None:
    """Wait for a workflow that was just run, and say how it has ended. Raises typer.Exit as `follow` does."""
    try:
        status = await workflow.wait()
    except asyncio.CancelledError:
        _tell_that_it_goes_on(workflow.id)
        raise
    write(ending(View(status)))
    raise typer.Exit(STATUSES.get(status.workflow.status, FAILURE))


def _tell_that_it_goes_on(workflow_id: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"The workflow goes on; to see it again: rnx workflow follow {workflow_id}\n")


async def _watch(client: Client, status: WorkflowStatus, screen: Screen, logs: Logs | None, *, after: int) -> str:
    """How the workflow has ended."""
    from joblet.client import OutOfRange

    workflow_id = status.workflow.id
    while True:
        view = View(status)
        screen.show(view)
        if logs is not None:
            for job in view.jobs.values():
                if job.status not in WAITING:
                    logs.read(job.name, job.job_id)
        stream = client.events(after, workflow=workflow_id, follow=not status.workflow.ended, reconnect=True)
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    view.apply(event)
                    if logs is not None and event.job_id and event.status not in WAITING:
                        logs.read(event.job_name, event.job_id)
                    await screen.tell(event)
        except OutOfRange:
            pass  # so much has happened meanwhile that it is not all kept: start from how it stands
        # The server's own word counts; and it may have been tried again just now.
        status = await client.workflow(workflow_id, reconnect=True)
        after = status.sequence
        if status.workflow.ended:
            screen.show(View(status))
            return status.workflow.status

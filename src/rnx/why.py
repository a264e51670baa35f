"""`rnx why` and `rerun`: what ended or blocks a job, and the same order once more."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet.command_line import FAILURE, Failure, one_line, write
from rnx import attach, evidence, render, secrets, workflow_text
from rnx import wait as waiting
from rnx.detach import DEFAULT
from rnx.jobs import JobId, Json
from rnx.session import OWN_FAILURE, ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, JobInfo, WorkflowJob, WorkflowStatus

_FAILED = frozenset({"FAILED", "STOPPED"})
_MOST_LOGS = 5
"""failed jobs of a workflow whose logs are shown"""


def why(
    ctx: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="JOB-ID", show_default=False)] = "",
    workflow: Annotated[
        str, typer.Option(metavar="ID", help="A workflow and its jobs, instead of one job.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """Tell what ended a job or keeps it waiting, with the evidence: limits and what was used, the end of its log."""
    if bool(job_id) == bool(workflow):
        ctx.fail("give either JOB-ID or --workflow=ID")

    async def call(client: Client) -> None:
        if workflow:
            status = await client.workflow(workflow)
            logs = {job.job_id: await _last_lines(client, job.job_id) for job in _failed(status)[:_MOST_LOGS]}
            write(_workflow_json(status, logs) if as_json else _workflow_text(status, logs))
            return
        job = await client.status(job_id)
        lines = await _last_lines(client, job_id)
        part = await _part(client, job)
        write(_job_json(job, lines, part) if as_json else _job_text(job, lines, part))

    with_client(ctx, call)


async def _last_lines(client: Client, job_id: str) -> list[str]:
    from joblet.client import CallError

    try:
        return evidence.last_lines(await client.tail(job_id))
    except CallError as error:  # a log that is lost is evidence too
        return [f"[{one_line(str(error))}]"]


async def _part(client: Client, job: JobInfo) -> tuple[WorkflowStatus, WorkflowJob] | None:
    """The workflow that a job is of, and what it is there."""
    from joblet.client import NotFound

    if not job.workflow_id:
        return None
    try:
        status = await client.workflow(job.workflow_id)
    except NotFound:  # deleted just now
        return None
    found = next((part for part in status.jobs if part.job_id == job.id), None)
    return None if found is None else (status, found)


def _job_text(job: JobInfo, log: list[str], part: tuple[WorkflowStatus, WorkflowJob] | None) -> str:
    text = waiting.ending(job) + "".join(f"{sentence}\n" for sentence in evidence.explanation(job))
    fields = [("Command", render.command(job)), ("Started At", job.start_time), ("Ended At", job.end_time)]
    if part:
        status, step = part
        fields.append(("Workflow", f"{status.workflow.id} ({status.workflow.workflow}), {status.workflow.status}"))
        attempt = f", attempt {step.attempt} of {step.max_attempts}" if step.max_attempts > 1 else ""
        fields.append(("Job", step.job_name + attempt))
        fields.append(("Requires", step.condition))
    fields += evidence.usage(job)
    text += "\n" + render.lines(*(field for field in fields if field[1]))
    return text + _log_text(job.id, log)


def _log_text(job_id: str, log: list[str], indent: str = "") -> str:
    if not log:
        return ""
    above = "" if indent else "\n"
    return f"{above}{indent}Last lines of its log (rnx log {one_line(job_id)}):\n" + "".join(
        f"{indent}  {line}".rstrip() + "\n" for line in log
    )


def _job_json(job: JobInfo, log: list[str], part: tuple[WorkflowStatus, WorkflowJob] | None) -> str:
    told: dict[str, Any] = {
        "job": json.loads(render.status_json(job)),
        "explanation": evidence.explanation(job),
        "lastLines": log,
        "workflowJob": workflow_text.job_object(part[1]) if part else None,
    }
    return json.dumps(told, indent=2) + "\n"


def _failed(status: WorkflowStatus) -> list[WorkflowJob]:
    return [job for job in status.jobs if job.status in _FAILED and job.started]


def _workflow_text(status: WorkflowStatus, logs: dict[str, list[str]]) -> str:
    info = status.workflow
    text = one_line(f"Workflow {info.id} {info.status}" + (f": {info.reason}" if info.reason else "")) + "\n"
    text += f"Progress: {workflow_text.progress(info)} jobs completed\n"
    for job in status.jobs:
        if job.status != "COMPLETED":
            text += "\n" + "".join(f"{line}\n" for line in _job_lines(job, status))
            text += _log_text(job.job_id, logs.get(job.job_id, []), "  ")
    return text


def _job_lines(job: WorkflowJob, status: WorkflowStatus) -> Iterator[str]:
    known = [
        f"job {job.job_id}" if job.started else "",
        f"attempt {job.attempt} of {job.max_attempts}" if job.max_attempts > 1 and job.attempt else "",
        "its failure is none of the workflow's" if job.continue_on_failure and job.status in _FAILED else "",
    ]
    details = ", ".join(detail for detail in known if detail)
    reason = job.reason or (evidence.waits_for(job, status.jobs) if job.status == "PENDING" else "")
    line = f"{job.job_name} {job.status}" + (f" ({details})" if details else "")
    yield one_line(line + (f": {reason}" if reason else ""))


def _workflow_json(status: WorkflowStatus, logs: dict[str, list[str]]) -> str:
    told = json.loads(workflow_text.status_json(status))
    return json.dumps(told | {"lastLines": logs}, indent=2) + "\n"


def rerun(
    ctx: typer.Context,
    job_id: JobId,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(
            "--secret-env",
            "-s",
            metavar="NAME",
            help=f"A secret of the job, which the server does not tell: {secrets.HELP}.",
        ),
    ] = None,
    upload: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Put this file into the work directory."),
    ] = None,
    upload_dir: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Put what is in this directory into the work directory."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="As of `rnx run`.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="As of `rnx run`.")] = False,
) -> None:
    """Run the same order again, as a new job and at once: command, limits, environment, labels, retries.

    Files are not kept for that: those that the job was given have to be given again.
    """
    values = secrets.secrets_of(secret_env)
    uploads = [*(upload or ()), *(upload_dir or ())]

    async def call(client: Client) -> None:
        old = await client.status(job_id)
        _check_complete(old, values, uploads)
        job = await client.run(
            old.command,
            *old.args,
            max_cpu=old.max_cpu,
            max_memory=old.max_memory,
            max_iobps=old.max_iobps,
            cpu_cores=old.cpu_cores,
            max_processes=old.max_processes,
            max_open_files=old.max_open_files,
            max_disk=old.max_disk,
            run_timeout=old.timeout_ms / 1000,
            priority=old.priority,
            name=old.name,
            environment=old.environment,
            secret_environment=values,
            workdir=old.workdir,
            uploads=uploads,
            labels=old.labels,
            retries=old.retries,
            retry_delay=old.retry_delay_ms / 1000,
            stdin=old.stdin,
            terminal=old.terminal,
            separate_streams=old.separate_streams,
        )
        if follow and old.stdin:
            await attach.accompany(job, DEFAULT, stdin=True)
        if follow:
            await waiting.follow(job)
        write(render.started(job.info))
        if wait:
            await waiting.wait_for(job)

    with_client(ctx, call, failure=OWN_FAILURE if wait or follow else FAILURE)


def _check_complete(old: JobInfo, values: Collection[str], uploads: Sequence[Path]) -> None:
    """Raise Failure for a job that would not be the same again."""
    if old.workflow_id:
        raise Failure(
            f"job {old.id} is of workflow {old.workflow_id}, whose values and files it needs:"
            f" rnx workflow retry {old.workflow_id}"
        )
    if missing := [name for name in old.secret_environment if name not in values]:
        flags = " ".join(f"--secret-env={name}" for name in missing)
        raise Failure(f"job {old.id} has secrets, which the server does not tell; give them again: {flags}")
    if old.has_uploads and not uploads:
        raise Failure(f"job {old.id} was given files, which are not kept; give them again: --upload, --upload-dir")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(cls=ServerCommand)(why)
    app.command(cls=ServerCommand)(rerun)

"""`rnx run`: a job, or the jobs of a workflow."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import FAILURE, write
from rnx import attach, later, render, secrets, terminal, workflow_file, workflow_text
from rnx import wait as waiting
from rnx.detach import DEFAULT, keys_of
from rnx.jobs import seconds
from rnx.progress import Bar
from rnx.session import OWN_FAILURE, ServerCommand, with_client

if TYPE_CHECKING:
    from joblet.client import Client, WorkflowFile

_OF_WORKFLOWS = ("parameters", "dry_run", "logs")
_OF_BOTH = ("workflow", "job_key", "wait", "follow")


def run(
    ctx: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", show_default=False)] = None,
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", show_default=False)] = None,
    workflow: Annotated[
        str,
        typer.Option(
            metavar="FILE[:JOB]", help="Run the jobs of this file, or one of them; no COMMAND then.", show_default=False
        ),
    ] = "",
    parameters: workflow_file.Parameters = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the workflow and print in which order its jobs would start.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for the end, and exit with the job's exit code (a workflow: see --follow)."),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Print what the job writes, and nothing else, to its end, and exit with its exit code: 255 if it was"
            " stopped, 125 if joblet itself has failed. Or watch the workflow to its end: 0 completed, 1 failed, 3"
            " stopped or canceled.",
        ),
    ] = False,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Send what comes from stdin to the job, and its end; with --follow."),
    ] = False,
    tty: Annotated[
        bool,
        typer.Option(
            "--tty", "-t", help="Give the job a terminal; with --follow. With -i each key goes to it, as Ctrl-C does."
        ),
    ] = False,
    detach_keys: attach.DetachKeys = DEFAULT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the job as `rnx status --json` does; with --wait as it has ended.")
    ] = False,
    logs: Annotated[bool, typer.Option("--logs", help="With --follow: what its jobs write, too.")] = False,
    name: Annotated[str, typer.Option(metavar="TEXT", help="Name of the job, for people.", show_default=False)] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment variable; of NAME alone from $NAME."),
    ] = None,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(
            "--secret-env", "-s", metavar="NAME", help=f"A variable whose value no answer shows: {secrets.HELP}."
        ),
    ] = None,
    workdir: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Where the command starts: below /work, or an absolute path.", show_default=False
        ),
    ] = "",
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
    max_cpu: Annotated[
        int, typer.Option(metavar="INT", help="Max CPU percentage (default: from config).", show_default=False)
    ] = 0,
    max_memory: Annotated[
        int, typer.Option(metavar="INT", help="Max memory in MB (default: from config).", show_default=False)
    ] = 0,
    max_iobps: Annotated[
        int, typer.Option(metavar="INT", help="Max I/O bytes per second (default: 0=unlimited).", show_default=False)
    ] = 0,
    cpu_cores: Annotated[
        str, typer.Option(metavar="LIST", help="CPU cores to run on, such as 0-3,5 (default: any).", show_default=False)
    ] = "",
    max_processes: Annotated[
        int, typer.Option(metavar="INT", help="Max processes and threads (default: from config).", show_default=False)
    ] = 0,
    max_open_files: Annotated[
        int, typer.Option(metavar="INT", help="Max open files of a process (default: from config).", show_default=False)
    ] = 0,
    max_disk: Annotated[
        int,
        typer.Option(metavar="INT", help="Max MB in the work directory (default: from config).", show_default=False),
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="DURATION",
            help="How long the command may run, such as 1h30m (default: from config, which is also the most).",
            show_default=False,
        ),
    ] = 0.0,
    priority: Annotated[
        int,
        typer.Option(
            metavar="INT",
            help="Who waits for a slot goes before those of a lower priority, -1000 to 1000 (default: 0).",
            show_default=False,
        ),
    ] = 0,
    separate: Annotated[
        bool,
        typer.Option(
            "--separate",
            help="Keep stdout and stderr apart, in an order that is only nearly kept: with --follow each is printed to"
            " its own, and rnx log has --stdout and --stderr.",
        ),
    ] = False,
    job_key: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Your own name for this order: whoever repeats it gets the same job, not a second one. It is repeated"
            " by itself when the connection is lost.",
            show_default=False,
        ),
    ] = "",
    label: later.Labels = None,
    schedule: later.When = "",
    timezone: later.Timezone = "",
    overlap: later.Overlap = "",
    jitter: later.Jitter = 0.0,
    catch_up: later.CatchUp = "",
    retries: later.Retries = 0,
    retry_delay: later.RetryDelay = 0.0,
) -> None:
    """Create and start a new job, or a workflow. Flags come before COMMAND; all that follows it is the command's."""
    if workflow:
        if command is not None:
            ctx.fail("give either COMMAND or --workflow")
        _refuse(
            ctx,
            ctx.params.keys() - {*_OF_WORKFLOWS, *_OF_BOTH},
            "is of single jobs: for those of a workflow the file says it",
        )
        if logs and not follow:
            ctx.fail("--logs needs --follow")
        if dry_run and (follow or wait):
            ctx.fail(f"give either --dry-run or {'--follow' if follow else '--wait'}")
        file = workflow_file.read(*workflow_file.locate(workflow), workflow_file.assignments("--param", parameters))
        if dry_run:
            from rnx.waves import dry_run as waves

            write(waves(str(file.path), file.plan))
            return
        _run_workflow(ctx, file, job_key, wait=wait, follow=follow, logs=logs)
        return
    if command is None:
        ctx.fail("Missing argument 'COMMAND', or --workflow=FILE.")
    _refuse(ctx, _OF_WORKFLOWS, "needs --workflow")
    if as_json and (follow or interactive or tty):
        ctx.fail("--json is without --follow, --interactive and --tty, which print what the job writes")
    if not schedule:
        _refuse(ctx, later.OF_SCHEDULES, "needs --schedule")
    if not retries:
        _refuse(ctx, ("retry_delay",), "needs --retries")
    labels = later.labels_of(label)
    when = later.schedule_of(schedule, timezone, overlap, jitter, catch_up)
    if wait or follow:
        later.check_waiting(when, "--follow" if follow else "--wait")
    environment = workflow_file.assignments("--env", env)
    secret_environment = secrets.secrets_of(secret_env, stdin_is_the_jobs=interactive)

    async def call(client: Client) -> None:
        keys_of(detach_keys)  # before there is a job
        if interactive and tty:
            terminal.check_raw()
        with Bar("Uploading", "Uploaded") as bar:
            job = await client.run(
                command,
                *(args or ()),
                max_cpu=max_cpu,
                max_memory=max_memory,
                max_iobps=max_iobps,
                cpu_cores=cpu_cores,
                max_processes=max_processes,
                max_open_files=max_open_files,
                max_disk=max_disk,
                run_timeout=timeout,
                priority=priority,
                key=job_key,
                name=name,
                environment=environment,
                secret_environment=secret_environment,
                workdir=workdir,
                uploads=[*(upload or ()), *(upload_dir or ())],
                stdin=interactive,
                terminal=terminal.described() if tty else None,
                labels=labels,
                schedule=when,
                retries=retries,
                retry_delay=retry_delay,
                separate_streams=separate,
                on_progress=bar.update,
            )
        if interactive or tty:
            await attach.accompany(job, detach_keys, stdin=interactive)
        if follow:
            await waiting.follow(job)
        if not (as_json and wait):
            write(render.status_json(job.info) if as_json else render.started(job.info))
        if wait:
            await waiting.wait_for(job, as_json=as_json)

    with_client(ctx, call, failure=OWN_FAILURE if wait or follow or interactive or tty else FAILURE)


def _run_workflow(ctx: typer.Context, file: WorkflowFile, key: str, *, wait: bool, follow: bool, logs: bool) -> None:
    async def call(client: Client) -> None:
        with Bar("Uploading", "Uploaded") as bar:
            workflow = await client.run_workflow(file, key=key, on_progress=bar.update)
        write(workflow_text.started(workflow))
        if follow or wait:
            from rnx import follow as watching

            if follow:
                await watching.follow(client, workflow.id, logs=logs, whole=True)
            await watching.wait_for(workflow)

    with_client(ctx, call)


def _refuse(ctx: typer.Context, names: Collection[str], why: str) -> None:
    """Raise a usage error for the first of these options that was given."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            ctx.fail(f"{option.opts[0]} {why}")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand, context_settings={"allow_interspersed_args": False})(run)

"""The workflow's file that a command line names, and the values it gives; faults are told without a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import Failure

if TYPE_CHECKING:
    from joblet.client import WorkflowFile

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="Value of a parameter of the workflow; of NAME alone from $NAME."
    ),
]


def locate(text: str) -> tuple[Path, str]:
    """The file and the job that `FILE[:JOB]` means. A file of the whole name wins; `C:` is a drive, not a file."""
    head, colon, job = text.rpartition(":")
    path = Path(text)
    if not colon or not job or not head or path.exists() or "/" in job or "\\" in job:
        return path, ""
    if len(head) == 1 and head.isalpha() and not Path(head).exists():
        return path, ""
    return Path(head), job


def read(path: Path, job: str, parameters: Mapping[str, str]) -> WorkflowFile:
    """The file, checked. Raises Failure with a line for each fault."""
    from joblet.client import JobletError, WorkflowFile

    try:
        return WorkflowFile.read(path, parameters=parameters, job=job)
    except JobletError as error:
        raise Failure(str(error)) from None


def check_uploads(file: WorkflowFile) -> None:
    """Raise Failure unless the files are there that its jobs want uploaded."""
    from joblet.client import JobletError

    try:
        file.uploads()
    except JobletError as error:
        raise Failure(str(error)) from None


def assignments(option: str, texts: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The values of `NAME=VALUE`, or of `NAME`, whose value is that of rnx's own environment.

    Raises BadParameter, without any value.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name:
            raise typer.BadParameter("expected NAME=VALUE", param_hint=option)
        if not equals:
            if name not in environ:
                raise typer.BadParameter(f"no variable {name!r} in the environment, and no =VALUE", param_hint=option)
            value = environ[name]
        if name in values:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        values[name] = value
    return values

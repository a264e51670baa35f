"""A workflow's file as it is sent: read, checked, with the files that its jobs want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from joblet.client._files import Source, uploads_of
from joblet.client.errors import InvalidArgument, InvalidWorkflow

if TYPE_CHECKING:
    from joblet.workflow.plan import Plan

MAX_FILE = 2**20
"""bytes of a workflow's file"""


@dataclass(frozen=True)
class WorkflowFile:
    """A file without faults, and what is asked of it."""

    path: Path
    text: str = field(repr=False)
    plan: Plan = field(repr=False)
    """what it comes to"""
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """those that were given"""
    job: str = ""
    """the only one that is to run; empty for all"""

    @classmethod
    def read(
        cls, path: str | Path, *, text: str | None = None, parameters: Mapping[str, str] | None = None, job: str = ""
    ) -> WorkflowFile:
        """Read and check the file, or the `text` that stands for it. This takes a while, and blocks.

        Raises InvalidWorkflow with all its faults; InvalidArgument when it cannot be read.
        """
        # Loading pydantic and YAML takes longer than most commands of rnx.
        from joblet import errors
        from joblet.workflow.build import parse

        path = Path(path)
        text = _read(path) if text is None else text
        parameters = dict(parameters or {})
        try:
            parsed = parse(text, file=str(path), parameters=parameters, job=job)
        except errors.InvalidWorkflow as error:
            raise InvalidWorkflow(error.faults) from None
        return cls(path, text, parsed.plan, parameters, job)

    def uploads(self, contents: Mapping[str, bytes] | None = None) -> list[Source]:
        """The files that its jobs want, beside it, or from `contents` by their names there. This blocks.

        Raises InvalidArgument for those that are not there, cannot be read, or are too many.
        """
        names = (name for step in self.plan.steps for name in step.uploads)
        return uploads_of(self.path.parent, names, contents or {})


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidArgument(f"cannot read {path}: {reason[:1].lower()}{reason[1:]}") from None
    if len(data) > MAX_FILE:
        raise InvalidArgument(f"{path}: larger than {MAX_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: not UTF-8 text at byte {error.start}") from None

"""The part of the client that fetches what jobs have made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from joblet.client._calls import Calls, check_text
from joblet.proto import joblet as pb

if TYPE_CHECKING:
    from joblet.client._download import Downloaded


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, directory or link of a job, or a further piece of the file before."""

    path: str
    """relative to what was asked for; empty for that itself, which comes first, and in further pieces"""
    mode: int = 0
    """permission bits"""
    is_directory: bool = False
    target: str = ""
    """of a symbolic link"""
    modified: int = 0
    """nanoseconds since the epoch"""
    size: int = 0
    """bytes of the file, as it was when the server opened it"""
    content: bytes = b""
    skipped: str = ""
    """why it is left out; empty when it is not"""


class FileCalls(Calls):
    """Fetch files out of the work directories of jobs, and the directories that the jobs of a workflow share."""

    async def read_files(self, job_id: str, path: str = "", *, workflow: bool = False) -> AsyncGenerator[FileEntry]:
        """What lies at `path` in the job's work directory, with all below it, in no order but directories first.

        With `workflow` the id is of a workflow, and the directory the one that its jobs share. Files come in pieces of
        at most 256 KiB. A job that runs may change them meanwhile: what vanishes is left out, and of a file that grows
        as much comes as there was. Paths and links are the job's own choice: see `download`, which minds that.

        Raises NotFound when nothing is there, FailedPrecondition when the job has not started. Use contextlib.aclosing
        to leave early and at once.
        """
        check_text("path", path)
        request = pb.ReadFilesReq(id="" if workflow else job_id, workflow_id=job_id if workflow else "", path=path)
        stub = self._files_stub
        with self._errors():
            async with aclosing(cast("AsyncGenerator[pb.FilePiece]", stub.read_files(request))) as pieces:
                async for piece in pieces:
                    yield FileEntry(
                        piece.path,
                        piece.mode,
                        piece.is_directory,
                        piece.target,
                        piece.modified,
                        piece.size,
                        piece.content,
                        piece.skipped,
                    )

    async def download(
        self,
        job_id: str,
        path: str,
        target: str | Path,
        *,
        workflow: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Downloaded:
        """Copy what lies at `path` in the job's work directory, and all below it, to this machine.

        It lies in `target` by its name when that is a directory (all of the work directory: what is in it), and is
        called `target` otherwise. Files of the same names are replaced, each when it has come whole; directories are
        filled. Nothing is written outside of it, whatever the job has named its files: links that lead out, and what is
        neither file, directory nor link, are left out and told. `on_progress` is told of bytes that have come, and of
        how many there are, 0 when that is not known.

        Raises as `read_files`, and InvalidArgument for what cannot be written.
        """
        from joblet.client._download import Download

        name = path.rstrip("/").rpartition("/")[2]
        async with aclosing(self.read_files(job_id, path, workflow=workflow)) as entries:
            return await Download(Path(target), name, on_progress).run(entries)

"""What a job is given: variables, uploads, where it starts; asked of the executor, without a server around it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from joblet.executor.base import Exit, LaunchFailed
from joblet.executor.local import LocalExecutor, Settings, View
from joblet.executor.local import disk as disks
from joblet.job import Job, Limits, Part, State, Uploads
from joblet.uploads import File
from joblet.uploads import Uploads as Store

LIMITS = Limits(100, 64, 0, 16, 64)
ON_DISK = Limits(100, 64, 0, 16, 64, max_disk=8)
needs_mkfs = pytest.mark.skipif(disks.find_mkfs() is None, reason="disk limits need e2fsprogs")
both_kinds = pytest.mark.parametrize("limits", [LIMITS, pytest.param(ON_DISK, marks=needs_mkfs)], ids=["plain", "disk"])


class Site:
    """An executor of its own, and what its jobs say."""

    def __init__(self, state: Path) -> None:
        self.state = state
        settings = Settings(state, (), 1.0, 0, View((), (), (), 1 << 20), 0x70000000, 16)
        self.executor = LocalExecutor(settings, f"view-{state.name}")
        self.uploads = Store(state)
        self._ids = itertools.count(1)

    async def run(self, script: str, **more: Any) -> tuple[Exit, str]:
        """A shell script as a job, run to its end: how it ended, and its output."""
        values: dict[str, Any] = {"limits": LIMITS, **more}
        job = Job(next(self._ids), "sh", ("-ec", script), state=State.INITIALIZING, owner="", created_at=0, **values)
        running = await self.executor.launch(job)
        end = await running.wait()
        assert isinstance(end, Exit)
        return end, self.executor.log_path(job.id).read_text(encoding="utf-8")

    async def output(self, script: str, **more: Any) -> str:
        end, said = await self.run(script, **more)
        assert end.code == 0, said
        return said

    async def refusal(self, **more: Any) -> LaunchFailed:
        with pytest.raises(LaunchFailed) as error:
            await self.run("echo ran", **more)
        return error.value


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.executor.close()


async def test_a_job_has_the_variables_that_it_was_given(site: Site) -> None:
    said = await site.output(
        'echo "$MODE $TOKEN $JOBLET_JOB_NAME"; echo "$JOBLET_JOB_ID $JOBLET_WORKFLOW_ID $JOBLET_ATTEMPT"',
        name="train",
        environment={"MODE": "a b"},
        secret_environment={"TOKEN": "s\n3"},
        part=Part(4, 0, 2),
    )
    assert said == "a b s\n3 train\n1 4 2\n"


LISTING = "find . -mindepth 1 ! -name '.*' -printf '%P %m %u\\n' | sort"


@both_kinds
async def test_uploads_lie_in_the_work_directory_as_roots_own(site: Site, limits: Limits) -> None:
    files = [
        File("run.sh", b"#!/bin/sh\necho it runs\n", 0o755),
        File("data/x", b"42"),
        File("data/empty", mode=0o700, is_directory=True),
    ]
    token = await site.uploads.save(files)
    script = f"{LISTING}; ./run.sh; cat data/x; echo more >> data/x; touch data/empty/new; stat -c %u ."
    assert await site.output(script, uploads=Uploads(token), limits=limits) == (
        "data 755 root\ndata/empty 700 root\ndata/x 644 root\nrun.sh 755 root\nit runs\n420\n"
    )
    assert (site.uploads.folder(token) / "data/x").read_bytes() == b"42", "each job has its own"


@both_kinds
async def test_a_job_is_given_what_it_names_of_an_upload_and_nothing_else(site: Site, limits: Limits) -> None:
    token = await site.uploads.save([File("a/b/c"), File("a/b/d"), File("a/e"), File("f"), File("g")])
    said = await site.output(LISTING, uploads=Uploads(token, ("f", "a/b", "a/b/c")), limits=limits)
    assert said == "a 755 root\na/b 755 root\na/b/c 644 root\na/b/d 644 root\nf 644 root\n"


async def test_a_job_whose_uploads_are_gone_is_not_run_without(site: Site) -> None:
    token = await site.uploads.save([File("a/b")])
    for paths in (("a/c",), ("a/b/c",), ("b",)):
        error = await site.refusal(uploads=Uploads(token, paths))
        assert str(error) == f"failed to prepare the work directory: {paths[0]} is not among its uploads"
    await site.uploads.remove(token)
    for gone in (token, "", "../jobs/1"):
        error = await site.refusal(uploads=Uploads(gone))
        assert str(error) == "failed to prepare the work directory: its uploads are missing on the server"
        assert error.exit_code == -1


@needs_mkfs
async def test_uploads_that_do_not_fit_into_the_disk_limit_fail_the_launch(site: Site) -> None:
    token = await site.uploads.save([File("big", os.urandom(9 << 20))])
    error = await site.refusal(uploads=Uploads(token), limits=ON_DISK)
    assert str(error) == "failed to prepare the work directory: its uploads do not fit into its disk limit of 8 MiB"
    token = await site.uploads.save([File("lost+found", b"")])
    assert "lost+found" in str(await site.refusal(uploads=Uploads(token), limits=ON_DISK))

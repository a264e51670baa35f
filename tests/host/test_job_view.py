"""What a job is given: variables, uploads, where it starts; asked of the executor, without a server around it."""

from __future__ import annotations

import asyncio
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
        settings = Settings(state, state / "server.lock", (), 1.0, 0, View((), (), (), 1 << 20), 0x70000000, 16)
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
    assert not (site.state / "jobs/1/staged").exists()
    assert site.executor.log_path(1).read_text() == f"joblet: {error}\n"
    token = await site.uploads.save([File("lost+found", b"")])
    assert "lost+found" in str(await site.refusal(uploads=Uploads(token), limits=ON_DISK))


@both_kinds
async def test_a_directory_to_start_in_is_made_in_the_work_directory(site: Site, limits: Limits) -> None:
    token = await site.uploads.save([File("src/run.sh", b"#!/bin/sh\npwd\n", 0o755)])
    uploads = Uploads(token)
    assert await site.output("./run.sh; echo $PWD", uploads=uploads, workdir="src", limits=limits) == (
        "/work/src\n/work/src\n"
    )
    assert await site.output("pwd; touch x; stat -c %u .", workdir="a/b", limits=limits) == "/work/a/b\n0\n"


async def test_a_directory_to_start_in_may_be_anywhere_in_the_jobs_view(site: Site) -> None:
    assert await site.output("pwd; echo $PWD", workdir="/tmp") == "/tmp\n/tmp\n"
    error = await site.refusal(workdir="/srv/none")
    assert (str(error), error.exit_code) == ("cannot enter /srv/none: no such file or directory", 127)
    error = await site.refusal(workdir="/etc/passwd")
    assert (str(error), error.exit_code) == ("cannot enter /etc/passwd: not a directory", 126)


async def test_a_directory_to_start_in_that_cannot_be_made_fails_the_launch(site: Site) -> None:
    uploads = Uploads(await site.uploads.save([File("a/file")]))
    error = await site.refusal(workdir="a/file/b", uploads=uploads)
    assert str(error) == "failed to prepare the work directory: workdir a/file/b: a/file is a file among its uploads"
    assert "file name too long" in str(await site.refusal(workdir="x" * 256))


@both_kinds
async def test_what_a_job_writes_to_its_output_file_comes_with_its_end(site: Site, limits: Limits) -> None:
    end, _ = await site.run(
        "echo ACCURACY=0.9 >> $JOBLET_OUTPUT; cd /; echo LOSS=1=2 >> $JOBLET_OUTPUT; exit 3", limits=limits
    )
    assert (end.code, end.outputs, end.outputs_error) == (3, {"ACCURACY": "0.9", "LOSS": "1=2"}, "")
    end, _ = await site.run("true", limits=limits)
    assert (end.outputs, end.outputs_error) == ({}, "")
    end, _ = await site.run("echo A=1 > $JOBLET_OUTPUT; echo nonsense >> $JOBLET_OUTPUT", limits=limits)
    assert (end.code, end.outputs, end.outputs_error) == (0, {}, "line 2 is not KEY=VALUE")
    end, _ = await site.run("ln -s /etc/passwd $JOBLET_OUTPUT", limits=limits)
    assert (end.code, end.outputs, end.outputs_error) == (0, {}, "not a regular file")


@both_kinds
async def test_jobs_of_a_workflow_share_a_directory_and_others_do_not(site: Site, limits: Limits) -> None:
    await site.output("echo one > $JOBLET_SHARED/f", part=Part(4, 0, 1), limits=limits)
    assert await site.output("cat /workflow/f", part=Part(4, 1, 1), limits=limits) == "one\n"
    assert await site.output("ls -A /workflow", part=Part(5, 0, 1), limits=limits) == ""
    assert await site.output("ls /workflow 2>/dev/null || echo none", limits=limits) == "none\n"
    found = (site.state / "workflows/4/shared/f").stat()
    assert found.st_uid == 0x70000000 - 1


async def test_jobs_that_come_to_a_shared_directory_at_once_all_have_it(site: Site) -> None:
    parts = [Part(4, position, 1) for position in range(8)]
    await asyncio.gather(*(site.output("echo $JOBLET_JOB_ID > /workflow/$JOBLET_JOB_ID", part=part) for part in parts))
    assert len(os.listdir(site.state / "workflows/4/shared")) == 8


async def test_a_shared_directory_is_measured_and_removed(site: Site) -> None:
    await site.executor.remove_shared(4)
    assert await site.executor.shared_bytes(4) == 0
    code = "head -c 1000000 /dev/zero > /workflow/f; mkdir -p /workflow/a/b; ln -s /etc /workflow/a/link"
    await site.output(code, part=Part(4, 0, 1))
    await site.output("true", part=Part(5, 0, 1))
    assert 1_000_000 <= await site.executor.shared_bytes(4) < 1_100_000
    await site.executor.remove_shared(4)
    assert os.listdir(site.state / "workflows") == ["5"]
    assert await site.executor.shared_bytes(4) == 0
    await site.executor.remove_shared(4)


async def test_what_a_job_has_nested_deeper_than_this_program_can_go_is_removed(site: Site) -> None:
    nest = "import os\nfor _ in range(1100): os.mkdir('d'); os.symlink('/etc', 'link'); os.chdir('d')"
    await site.output(f'cd /workflow; python3 -Ic "{nest}"', part=Part(4, 0, 1))
    await site.executor.remove_shared(4)
    assert os.listdir(site.state / "workflows") == []


@needs_mkfs
async def test_no_name_of_an_upload_is_too_odd_for_a_disk(site: Site) -> None:
    names = ["a b\nc", "é", "-x", "*", "%s", "...", " ", "\\", "q\"'"]
    token = await site.uploads.save([File(f"{name}/{name}") for name in names])
    said = await site.output("find . -type f -print0", uploads=Uploads(token), limits=ON_DISK)
    assert set(said.rstrip("\0").split("\0")) == {f"./{name}/{name}" for name in names}


@pytest.mark.parametrize("number", range(3, 12))
async def test_no_descriptor_of_its_init_is_a_way_for_a_job_to_start_elsewhere(site: Site, number: int) -> None:
    """The init changes to the directory, and had the host's root open before."""
    assert str(await site.refusal(workdir=f"/proc/self/fd/{number}")).startswith("cannot enter ")

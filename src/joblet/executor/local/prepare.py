"""What a job's shim finds: its work directory with uploads, its disk, what it shares."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from joblet.executor.local import disk
from joblet.job import Job
from joblet.uploads import Uploads


class CannotPrepare(Exception):
    """The work directory cannot hold what it should. `str(error)` says why, for the user."""


def work_directory(job: Job, directory: Path, base: int, uploads: Uploads) -> None:
    """Make what the job's work directory is mounted from, all of it owned by the job's first id.

    Raises CannotPrepare, disk.DiskError or OSError.
    """
    work = directory / "work"
    _make_own(work, base)
    limit = job.limits.max_disk
    if not limit:
        _fill(work, job, base, uploads)
        return
    # The shim mounts a file system that it is to be in already.
    staged = directory / "staged"
    _make_own(staged, base)
    try:
        _fill(staged, job, base, uploads)
        if (staged / "lost+found").exists():
            raise CannotPrepare("a work directory with a disk limit takes no upload called lost+found")
        disk.make(directory / "disk", limit, staged)
    except disk.TooSmall:
        raise CannotPrepare(f"its uploads do not fit into its disk limit of {limit} MiB") from None
    finally:
        shutil.rmtree(staged)


def shared_directory(directory: Path, owner: int) -> None:
    """Make what the jobs of a workflow share, where it is missing. Raises OSError.

    Its owner is root of each of them, by an ID-mapped mount. Two may come here at once.
    """
    for folder in (directory.parent.parent, directory.parent, directory):
        folder.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid == 0:
        os.chown(directory, owner, owner, follow_symlinks=False)


def _make_own(directory: Path, owner: int) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, owner, owner)


def _fill(work: Path, job: Job, owner: int, uploads: Uploads) -> None:
    if job.uploads is not None:
        try:
            folder = uploads.folder(job.uploads.folder)
        except FileNotFoundError:
            raise CannotPrepare("its uploads are missing on the server") from None
        _copy_uploads(folder, job.uploads.paths, work, owner)
    if job.workdir and not job.workdir.startswith("/"):
        _make_workdir(work, job.workdir, owner)


def _copy_uploads(folder: Path, paths: Sequence[str], work: Path, owner: int) -> None:
    """Copy these files and directories, or all there are."""
    for path in map(PurePosixPath, paths or os.listdir(folder)):
        try:
            for parent in reversed(path.parents[:-1]):
                _copy_directory(folder / parent, work / parent, owner)
            _copy(folder / path, work / path, owner)
        except (FileNotFoundError, NotADirectoryError):
            raise CannotPrepare(f"{path} is not among its uploads") from None


def _copy(source: Path, target: Path, owner: int) -> None:
    what = source.lstat()
    if stat.S_ISDIR(what.st_mode):
        _copy_directory(source, target, owner)
        for name in os.listdir(source):
            _copy(source / name, target / name, owner)
    elif stat.S_ISREG(what.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
        _give(target, owner, what.st_mode)
    else:
        raise CannotPrepare(f"{source.name} among its uploads is no file")


def _copy_directory(source: Path, target: Path, owner: int) -> None:
    target.mkdir(exist_ok=True)
    _give(target, owner, source.lstat().st_mode)


def _make_workdir(work: Path, path: str, owner: int) -> None:
    for part in (*reversed(PurePosixPath(path).parents[:-1]), PurePosixPath(path)):
        directory = work / part
        try:
            directory.mkdir()
        except FileExistsError:
            if not directory.is_dir():
                raise CannotPrepare(f"workdir {path}: {part} is a file among its uploads") from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise CannotPrepare(f"workdir {path[:128]}: file name too long") from None
        else:
            _give(directory, owner, 0o755)


def _give(path: Path, owner: int, mode: int) -> None:
    os.chown(path, owner, owner)
    os.chmod(path, stat.S_IMODE(mode))  # chown(2) may have cleared bits

"""Jobs as shims on this host (shim/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from joblet import clock
from joblet.command import Command
from joblet.errors import HostUnable
from joblet.executor.base import Exit, LaunchFailed, Lost, Usage
from joblet.executor.local import disk, exec, files, host, monitor, prepare, ranges, reading, record, shim, spec
from joblet.executor.local.cgroup import Cgroups
from joblet.executor.local.freezing import Freezing
from joblet.executor.local.record import NO_DESCRIPTOR, BadRecord
from joblet.executor.local.running import Shim
from joblet.executor.local.spawn import Process, Unfollowed
from joblet.executor.local.spec import View
from joblet.job import LOST, Job, Limits, State
from joblet.log import fields
from joblet.uploads import Uploads

log = logging.getLogger(__name__)

_PROBE = "probe-"
_PROBE_ID = 0
_KILLED = "monitor"
"""stage of a launch whose monitor was killed, which says nothing of the host"""
_NO_LOG = "log"
"""stage of a launch that has no log to be told in"""
_PROBE_LIMITS = Limits(max_cpu=100, max_memory=64, max_iobps=0, max_processes=16, max_open_files=64)
_LAUNCH_TRIES = 60
_COPIES = 2
"""jobs whose uploads are copied at a time: they may be large, and threads are few"""
_PAUSE_WITHOUT_DESCRIPTORS = 1.0
"""seconds"""

_Begun = Callable[[Shim], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says of jobs on this host."""

    state_dir: Path
    server_lock: Path
    """a file that the server has locked (fcntl_locking(2)) for as long as it lives"""
    private: tuple[Path, ...]
    """paths no job may see, beside the state directory"""
    grace: float
    """seconds between SIGTERM and SIGKILL"""
    log_limit: int
    """bytes of output that a log keeps; 0 is no limit"""
    view: View
    """what jobs see beside the host's system directories"""
    id_base: int
    id_ranges: int


class LocalExecutor:
    """Launches shims and finds them again. The mutable state is the id ranges in use."""

    def __init__(self, settings: Settings, instance: str) -> None:
        """`instance` tells this server's control groups from another's.

        Raises HostUnable when what the settings say that jobs see cannot be shown.
        """
        self._settings = settings
        self._jobs = settings.state_dir / "jobs"
        self._jobs.mkdir(mode=0o700, exist_ok=True)
        self._workflows = settings.state_dir / "workflows"
        self._uploads = Uploads(settings.state_dir)
        self._strays = monitor.Strays(self._jobs)
        self._ranges = ranges.IdRanges(settings.id_base, settings.id_ranges)
        self._instance = instance
        self.epoch = clock.boot_id()
        self._view = host.view(settings.view, (settings.state_dir, *settings.private))
        self._found_cgroups: Cgroups | None = None
        self.freezing = Freezing(lambda: self._cgroups)
        self._copies = asyncio.Semaphore(_COPIES)

    @property
    def _cgroups(self) -> Cgroups:
        """The host's control groups, ready for jobs. Raises HostUnable."""
        if self._found_cgroups is None:
            found = host.find_cgroups(self._instance)
            try:
                found.prepare()
            except OSError as error:
                raise HostUnable(f"cgroup setup failed: {_text(error)}") from error
            self._found_cgroups = found
        return self._found_cgroups

    def log_path(self, job_id: int) -> Path:
        """The job's raw output."""
        return self._jobs / str(job_id) / "log"

    async def probe(self, limits: Limits = _PROBE_LIMITS) -> None:
        """Launch a job of nothing, as any other is launched. Raises HostUnable with the stage's sentence."""
        try:
            directory = Path(tempfile.mkdtemp(prefix=_PROBE, dir=self._settings.state_dir))
        except OSError as error:
            raise HostUnable(f"log setup failed: {_text(error)}") from error
        try:
            nothing = Job(_PROBE_ID, "true", (), limits, State.INITIALIZING, owner="", created_at=clock.now_ns())
            running = await self._launch(nothing, directory)
            await running.wait()
        except LaunchFailed as error:
            raise HostUnable(str(error)) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def check_room(self) -> None:
        """Raise NoRoom or DiskUnusable when the state directory's disk takes no job."""
        files.check_room(self._jobs)

    async def launch(self, job: Job, begun: _Begun | None = None) -> Shim:
        """Start a job; returns when its command has been exec'd. Raises LaunchFailed, NoRoom or DiskUnusable.

        `begun` is given it as soon as it can be stopped.

        That this server has no descriptor to launch it with is not the job's fault, and goes by: it waits for a while.
        """
        directory = self._jobs / str(job.id)
        for attempt in range(1, _LAUNCH_TRIES + 1):
            try:
                return await self._try_launch(job, directory, begun, again=attempt > 1)
            except LaunchFailed as error:
                if error.errno not in NO_DESCRIPTOR or attempt == _LAUNCH_TRIES:
                    raise
                if attempt == 1:
                    log.warning("job waits for descriptors to be launched with", extra=fields(jobId=job.id))
            await asyncio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)
        raise AssertionError

    async def _try_launch(self, job: Job, directory: Path, begun: _Begun | None, *, again: bool) -> Shim:
        try:
            if again:
                await self.remove(job.id)
        except OSError as error:
            raise _no_log(error) from error
        try:
            return await self._launch(job, directory, begun)
        except LaunchFailed as error:
            if error.stage not in (_NO_LOG, _KILLED):  # of a job lost later the log is its own
                files.tell_in_log(directory, str(error))
            raise

    async def recover(self, job: Job) -> Shim | Exit | Lost | None:
        """Find a job again that an earlier server launched, or had begun to; None when its shim was never started.

        Raises HostUnable when its monitor is of a later version than this server, and leaves it alone.
        """
        directory = self._jobs / str(job.id)
        if job.epoch not in ("", self.epoch):  # of what it wrote, at most the exit record is sure to be on the disk
            return await self._conclude(directory, "the host was rebooted")
        try:
            found = await monitor.find(directory, self.epoch)
        except BadRecord as error:
            return await self._end_damaged(directory, str(error))
        if found is None:
            return await self._take_up(job, directory)
        process, started = found.process, found.started
        if started is None:  # it hangs; and it must not begin when it is said to have failed
            process.send_signal(signal.SIGKILL)
            await process.wait()
            return await self._conclude(directory)
        try:
            base = (directory / "work").stat(follow_symlinks=False).st_uid
        except OSError:
            process.close()
            return await self._end_damaged(directory, "its work directory is missing")
        self._ranges.claim(base)
        return self._running(directory, process, started, base)

    async def _take_up(self, job: Job, directory: Path) -> Exit | Lost | None:
        """What an earlier server's job has come to that has no monitor, or one that does not hold its lock."""
        if not (directory / "exit").exists() and (fault := self._strays.fault(directory)):
            return await self._end_damaged(directory, fault)
        if monitor.has_begun(directory):
            await self.freezing.forget(directory.name)
            return await self._conclude(directory)
        if job.state is State.INITIALIZING:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        return None

    async def _end_damaged(self, directory: Path, reason: str) -> Lost:
        """End what there is of a job that cannot be followed: it must not run on with nobody to know of it."""
        await self.freezing.release(directory.name)
        await self._strays.kill(directory)
        with contextlib.suppress(HostUnable):
            await asyncio.to_thread(self._cgroups.clean, directory.name)
        return Lost(f"{LOST}{reason}")

    async def usage(self, job_ids: Collection[int]) -> dict[int, Usage]:
        """What those of these jobs use now that have control groups."""
        try:
            cgroups = self._cgroups
        except HostUnable:  # and so nothing runs
            return {}
        found = await asyncio.to_thread(lambda: {job_id: cgroups.usage(str(job_id)) for job_id in job_ids})
        return {job_id: usage for job_id, usage in found.items() if usage is not None}

    def total_usage(self) -> Usage | None:
        """What all jobs of this server use together, and have used; None while they have no group. Reads files."""
        cgroups = self._found_cgroups
        return cgroups.total() if cgroups is not None else None

    async def disk_bytes(self, job_id: int) -> int:
        """What an ended job takes of the disk."""
        return await asyncio.to_thread(files.disk_bytes, self._jobs / str(job_id))

    async def remove(self, job_id: int) -> None:
        """Remove an ended job's directory, from the disk too. Raises OSError."""
        await asyncio.to_thread(files.remove, self._jobs / str(job_id))

    async def open_work(self, job_id: int) -> int:
        """A descriptor of a job's work directory, as it is now. Raises NoFiles or OSError."""
        return await reading.open_work(self._jobs / str(job_id), self.epoch)

    async def open_shared(self, workflow_id: int) -> int:
        """A descriptor of the directory that a workflow's jobs share. Raises NoFiles or OSError."""
        return await reading.open_directory(self._shared(workflow_id), f"workflow {workflow_id}")

    async def shared_bytes(self, workflow_id: int) -> int:
        """What the directory that a workflow's jobs share takes of the disk."""
        return await asyncio.to_thread(files.disk_bytes, self._shared(workflow_id))

    async def remove_shared(self, workflow_id: int) -> None:
        """Remove the directory that a workflow's jobs have shared, from the disk too. Raises OSError."""
        await asyncio.to_thread(files.remove, self._shared(workflow_id).parent)

    def _shared(self, workflow_id: int) -> Path:
        return self._workflows / str(workflow_id) / "shared"

    async def exec(self, job: Job, command: Command) -> exec.Session:
        """Start another command in a running job. Raises executor.base.JobGone or OSError."""
        return await exec.start(job, self._jobs / str(job.id), command)

    def job_ids(self) -> list[int]:
        """The jobs that have a directory."""
        return _numbers_in(self._jobs)

    def workflow_ids(self) -> list[int]:
        """The workflows that have a directory."""
        return _numbers_in(self._workflows) if self._workflows.exists() else []

    async def end_stranger(self, job_id: int) -> bool:
        """End a job that no record knows, whoever launched it; False when it does not run."""
        directory = self._jobs / str(job_id)
        await self.freezing.release(directory.name)
        with contextlib.suppress(BadRecord):
            process = monitor.find_process(directory, self.epoch)
            if process is not None:
                process.send_signal(signal.SIGUSR1)
                await process.wait()
                return True
        return await self._strays.kill(directory)

    async def clean_leftovers(self, live: set[str]) -> None:
        """Remove control groups of jobs that are no more, and what is left of probes that a killed server began."""
        for directory in self._settings.state_dir.glob(f"{_PROBE}*"):
            if not monitor.lives(directory):
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        with contextlib.suppress(HostUnable):
            for name in self._cgroups.leftovers() - live:
                await asyncio.to_thread(self._cgroups.clean, name)

    def close(self) -> None:
        """Remove the control groups above the jobs' when no job is left."""
        if self._found_cgroups is not None:
            self._found_cgroups.remove()

    async def _launch(self, job: Job, directory: Path, begun: _Begun | None = None) -> Shim:
        try:
            base = self._ranges.take()
        except IndexError:
            raise LaunchFailed(
                "namespace", 0, "failed to create isolated environment: no free range of user ids"
            ) from None
        try:
            launched = await self._begin(job, directory, base)
        except Exception:  # nothing of it runs
            self._ranges.give_back(base)
            raise
        process = Process(launched.pid, launched.pidfd, child=True)
        running = self._running(directory, process, record.Started(clock.now_ns(), time.monotonic()), base)
        if begun is not None:
            begun(running)
        failure = await shim.read_report(launched.report)
        if failure is None:
            return running
        end = await running.wait()
        if isinstance(end, Lost) and process.was_killed:
            failure = LaunchFailed(_KILLED, 0, end.reason)
        raise failure

    async def _begin(self, job: Job, directory: Path, base: int) -> shim.Launched:
        """Start the shim of a job whose first id is `base`. Raises LaunchFailed, and then it does not run."""
        shared = self._shared(job.part.workflow_id) if job.part is not None else None
        try:
            order = spec.encode(
                job,
                uid_base=base,
                id_count=ranges.COUNT,
                grace_ms=round(self._settings.grace * 1000),
                log_limit=self._settings.log_limit,
                view=self._view,
                groups=self._groups(job.limits, directory.name),
                shared=shared,
                server_lock=self._settings.server_lock,
            )
            async with self._copies if job.uploads is not None else contextlib.nullcontext():
                return await asyncio.to_thread(self._start, job, directory, base, shared, order)
        except prepare.CannotPrepare as error:
            raise LaunchFailed("work", 0, f"failed to prepare the work directory: {error}") from error
        except disk.DiskError as error:
            raise LaunchFailed("rootfs", 0, f"failed to create isolated environment: {error}") from error
        except HostUnable as error:
            raise LaunchFailed("cgroup", 0, str(error)) from error
        except Unfollowed as error:
            await asyncio.to_thread(self._cgroups.clean, directory.name)
            if monitor.has_begun(directory):  # and may have come to run the command, which must not run again
                raise LaunchFailed(_KILLED, 0, f"lost: {self._why_lost(None)}") from error
            raise LaunchFailed("shim", 0, f"failed to create isolated environment: {_text(error)}") from error
        except OSError as error:
            raise _no_log(error) from error

    def _start(self, job: Job, directory: Path, base: int, shared: Path | None, order: bytes) -> shim.Launched:
        if job.id != _PROBE_ID:
            files.check_room(self._jobs)
            directory.mkdir(mode=0o700)
        prepare.work_directory(job, directory, base, self._uploads)
        if shared is not None:
            prepare.shared_directory(shared, self._settings.id_base - 1)
        return shim.start(job.id, directory, order)

    def _groups(self, limits: Limits, name: str) -> list[spec.Group]:
        devices: tuple[str, ...] = ()
        if limits.max_iobps:
            devices = host.backing_disks([self._jobs, *host.on_disks(self._view)])
        return self._cgroups.groups(name, limits, devices)

    async def _conclude(self, directory: Path, reason: str = "") -> Exit | Lost:
        """What is left of a job whose monitor has ended; `reason` is why it has, where that is known."""
        while True:
            try:
                return await self._read_end(directory, reason)
            except OSError as error:
                if error.errno not in NO_DESCRIPTOR:
                    raise
            await asyncio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)

    async def _read_end(self, directory: Path, reason: str) -> Exit | Lost:
        try:
            if (ended := record.read_exit(directory)) is not None:
                if self._found_cgroups is not None:
                    self._found_cgroups.add_ended(ended.receipt)
                return ended
            reason = reason or self._why_lost(record.read_monitor(directory))
        except BadRecord as error:
            reason = reason or str(error)
        with contextlib.suppress(HostUnable):
            await asyncio.to_thread(self._cgroups.clean, directory.name)
        return Lost(f"{LOST}{reason}")

    def _why_lost(self, who: record.Monitor | None) -> str:
        return "the host was rebooted" if who is not None and who.boot != self.epoch else "its monitor was killed"

    def _running(self, directory: Path, process: Process, started: record.Started, base: int) -> Shim:
        async def finish(reason: str) -> Exit | Lost:
            end = await self._conclude(directory, reason)
            self._ranges.give_back(base)
            return end

        return Shim(directory, process, started, self.freezing, self._settings.grace, finish)


def _no_log(error: OSError) -> LaunchFailed:
    return LaunchFailed(_NO_LOG, error.errno or 0, f"log setup failed: {_text(error)}")


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _numbers_in(folder: Path) -> list[int]:
    return [int(name) for name in os.listdir(folder) if name.isascii() and name.isdecimal()]

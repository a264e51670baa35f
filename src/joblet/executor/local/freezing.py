"""Pausing of jobs by their control groups, without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblet.errors import CannotPause, HostUnable
from joblet.executor.local.cgroup import Cgroups

T = TypeVar("T")

_THREADS = ThreadPoolExecutor(4, "freezer")
"""apart from those that read files: they may have to wait for processes"""


class Freezing:
    """Calls for jobs by the names of their groups. None is told of a job that is over."""

    def __init__(self, cgroups: Callable[[], Cgroups]) -> None:
        """`cgroups` gives the host's, or raises HostUnable."""
        self._cgroups = cgroups

    async def freeze(self, name: str) -> None:
        """Keep a job's processes from running; returns when all stand still. Raises CannotPause."""
        with contextlib.suppress(FileNotFoundError):
            await self._call(lambda groups: groups.freeze(name))

    async def thaw(self, name: str) -> None:
        """Let them go on. Raises CannotPause."""
        await self._call(lambda groups: groups.thaw(name))

    def is_frozen(self, name: str) -> bool:
        """Whether they are kept from running, or about to be. Raises CannotPause."""
        with _explained():
            return self._cgroups().is_frozen(name)

    async def release(self, name: str) -> None:
        """Let a job go on that is to be killed: what is frozen by v1 does not even die."""
        with contextlib.suppress(CannotPause):
            await self.thaw(name)

    async def forget(self, name: str) -> None:
        """Remove what pauses have left of a job whose monitor has ended."""
        with contextlib.suppress(CannotPause, FileNotFoundError):
            await self._call(lambda groups: groups.forget(name))

    async def _call(self, call: Callable[[Cgroups], T]) -> T:
        with _explained():
            return await asyncio.get_running_loop().run_in_executor(_THREADS, call, self._cgroups())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except HostUnable as error:
        raise CannotPause(str(error)) from error
    except OSError as error:
        raise CannotPause(error.strerror or str(error)) from error

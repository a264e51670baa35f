"""What has happened, in order: rows that the database itself adds with each change that they tell of."""

from __future__ import annotations

from collections.abc import Callable

from joblet.store.database import NEWEST_EVENT, Database
from joblet.workflow.record import Event

_LOST_AT_MOST = 1_000_000
"""numbers; of every live job there may be one"""
_BATCH = 1_000
"""events removed in one change, so that others do not wait long for it"""


class Events:
    """Events on disk. A method that cannot do its part raises StoreFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told = 0
        self.on_commit: Callable[[], None] = lambda: None
        """called on the event loop after each commit with which there are new events"""
        database.on_commit = self._tell

    async def after(
        self,
        sequence: int,
        count: int,
        *,
        workflow_id: int | None = None,
        job_id: int | None = None,
        owner: str | None = None,
    ) -> list[Event]:
        """The first `count` events with higher sequence numbers, in order; only of one workflow, job or owner if so
        asked.

        A workflow's are those of its jobs too. Some may be gone: `bounds` tells the oldest that is kept.
        """
        asked = (("workflow_id", workflow_id), ("job_id", job_id), ("owner", owner))
        of = [(name, value) for name, value in asked if value is not None]
        where = "".join(f" AND {name} = ?" for name, _ in of)
        rows = await self._database.query(
            "SELECT sequence, at, status, workflow_id, job_id, name, exit_code, reason, attempt, owner FROM events "
            f"WHERE sequence > ?{where} ORDER BY sequence LIMIT ?",
            sequence,
            *(value for _, value in of),
            count,
        )
        return [Event(*row) for row in rows]

    async def bounds(self) -> tuple[int, int]:
        """Sequence numbers of the oldest event that is kept and of the newest there has been.

        When none is kept the oldest is the next one, newest + 1.
        """
        ((oldest, newest),) = await self._database.query(f"SELECT (SELECT min(sequence) FROM events), ({NEWEST_EVENT})")
        return newest + 1 if oldest is None else oldest, newest

    async def skip_lost(self, epoch: str) -> None:
        """Never give out a number again that was told before a power failure and is not on the disk.

        `epoch` is the time since the host was started; changes of others that need not be on the disk may be lost.
        """
        rows = await self._database.query("SELECT epoch FROM jobs WHERE epoch <> '' ORDER BY id DESC LIMIT 1")
        if rows and rows[0][0] != epoch:
            _, newest = await self.bounds()
            await self._database.skip_ids("events", newest + _LOST_AT_MOST)

    async def trim(self, keep: int) -> None:
        """Remove all but the newest `keep`."""
        oldest, newest = await self.bounds()
        for last in range(oldest + _BATCH - 1, newest - keep + _BATCH, _BATCH):
            await self._database.execute("DELETE FROM events WHERE sequence <= ?", (min(last, newest - keep),))

    def _tell(self, newest: int) -> None:
        if newest != self._told:
            self._told = newest
            self.on_commit()

"""Lines of the server's log on what clients can cause as often as they like."""

from __future__ import annotations

import asyncio
import logging

from joblet.log import fields

log = logging.getLogger(__name__)

_SECONDS = 10.0
"""from the first line of a kind until there may be others again"""


class Reports:
    """At most so many lines of a kind in a while, and then one with the number of those that were left out.

    The mutable state is how many there were to be, by kind, of those with a line not long ago.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._wanted: dict[str, int] = {}

    def tell(self, kind: str, **values: object) -> None:
        """Log a line of this kind, or count it. The kinds must be few. Needs a running event loop."""
        wanted = self._wanted[kind] = self._wanted.get(kind, 0) + 1
        if wanted == 1:
            asyncio.get_running_loop().call_later(_SECONDS, self._sum_up, kind)
        if wanted <= self._most:
            log.warning(kind, extra=fields(**values))

    def _sum_up(self, kind: str) -> None:
        if (left_out := self._wanted.pop(kind) - self._most) > 0:
            log.warning(kind, extra=fields(leftOut=left_out, seconds=round(_SECONDS)))

"""Events that are read once for all who watch them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from joblet.server import feed
from joblet.server.feed import Feed
from joblet.store import Events, Store

HELD = 20


class Site:
    """A store whose events a test makes, and the feed of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events = Events(store.database)
        self.feed = Feed(self.events)

    async def happen(self, count: int) -> None:
        sql = (
            "INSERT INTO events (at, status, name, exit_code, reason, attempt) SELECT 1, 'RUNNING', '', 0, '', 0 "
            "FROM json_each('[' || rtrim(replace(hex(zeroblob(?)), '00', '0,'), ',') || ']')"
        )
        await self.store.database.execute(sql, (count,))

    async def numbers(self, after: int, count: int = 1000) -> tuple[list[int], int, bool] | None:
        found = await self.feed.after(after, count)
        return None if found is None else ([told.event.sequence for told in found[0]], *found[1:])


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(feed, "_KEPT", HELD)
    store = Store.open(tmp_path / "joblet.db")
    yield Site(store)
    await store.close()


async def test_gives_what_is_newer_and_says_up_to_where_it_is_whole(site: Site) -> None:
    assert await site.numbers(0) == ([], 0, True)
    await site.happen(5)
    assert await site.numbers(0) == ([1, 2, 3, 4, 5], 5, True)
    assert await site.numbers(3) == ([4, 5], 5, True)
    assert await site.numbers(1, 2) == ([2, 3], 3, False)
    assert await site.numbers(3, 2) == ([4, 5], 5, True)
    assert await site.numbers(5) == ([], 5, True)


async def test_sends_those_to_the_store_who_are_further_behind_than_is_held(site: Site) -> None:
    await site.happen(15)
    assert (await site.numbers(0) or [[]])[0] == list(range(1, 16))
    await site.happen(15)
    assert await site.numbers(9) is None
    assert await site.numbers(10) == (list(range(11, 31)), 30, True)
    await site.happen(10 * HELD)  # while nobody asks
    assert await site.numbers(30) is None
    assert await site.numbers(230 - HELD) == (list(range(231 - HELD, 231)), 230, True)


async def test_one_reads_for_all(site: Site) -> None:
    await site.happen(3)
    queries = Mock(wraps=site.events.after)
    site.events.after = queries
    answers = await asyncio.gather(*(site.feed.after(0, 10) for _ in range(10)))
    assert queries.call_count == 1
    assert len({id(told) for answer in answers if answer for told in answer[0]}) == 3


async def test_who_waits_is_told_of_every_commit_with_events(site: Site) -> None:
    with site.feed.waiting() as one, site.feed.waiting() as other:
        await site.happen(1)
        assert one.is_set()
        assert other.is_set()
        one.clear()
    await site.happen(1)
    assert not one.is_set()

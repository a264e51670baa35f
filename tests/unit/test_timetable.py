from __future__ import annotations

import asyncio

import pytest

from joblet import clock, timetable
from joblet.timetable import Timetable

SECOND = 1_000_000_000

pytestmark = pytest.mark.timeout(20)


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def now_ns(self) -> int:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(clock, "now_ns", wall.now_ns)
    return wall


async def test_who_waits_is_told_at_the_time_and_in_order(wall: Wall) -> None:
    table, told = Timetable(), list[int]()
    for number, delay in ((1, 0.03), (2, 0.01), (3, 0.02), (4, -5)):
        turn = table.wait(number, wall.now + round(delay * SECOND))
        turn.add_done_callback(lambda _, number=number: told.append(number))
    assert not table.is_held(1)
    for _ in range(3):
        wall.now += SECOND // 100
        await asyncio.sleep(0.02)
    assert told == [4, 2, 3, 1]


async def test_a_timer_that_is_too_early_by_the_wall_clock_waits_on(
    wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timetable, "_LOOK_SECONDS", 0.01)
    table = Timetable()
    turn = table.wait(1, wall.now + SECOND // 100)
    await asyncio.sleep(0.05)
    assert not turn.done()
    wall.now += SECOND
    await turn


async def test_a_clock_that_is_set_forward_is_noticed(wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "_LOOK_SECONDS", 0.01)
    table = Timetable()
    turn = table.wait(1, wall.now + 3600 * SECOND)
    await asyncio.sleep(0.05)
    assert not turn.done()
    wall.now += 3600 * SECOND
    await turn


async def test_who_is_withdrawn_is_cancelled_and_others_are_not(wall: Wall) -> None:
    table = Timetable()
    timed, held, other = table.wait(1, wall.now + SECOND), table.wait(2, None), table.wait(3, wall.now + SECOND)
    assert [table.withdraw(number) for number in (1, 1, 2, 4)] == [True, False, True, False]
    assert timed.cancelled()
    assert held.cancelled()
    assert not other.done()


async def test_who_is_held_waits_to_be_called(wall: Wall) -> None:
    table = Timetable()
    turn = table.wait(1, None)
    wall.now += 10**6 * SECOND
    assert table.is_held(1)
    table.call(1)
    assert turn.done()
    assert not table.is_held(1)
    assert not table.withdraw(1)
    table.call(1)


async def test_there_is_a_timer_only_while_somebody_waits_for_a_time(wall: Wall) -> None:
    table = Timetable()
    table.wait(1, None)
    assert table._timer is None
    table.wait(2, wall.now + 3600 * SECOND)
    assert table._timer is not None
    assert table._timer.when() - asyncio.get_running_loop().time() <= 30
    table.withdraw(2)
    assert table._timer is None
    table.wait(3, wall.now + SECOND)
    table.close()
    assert table._timer is None

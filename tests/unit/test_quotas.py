"""What the jobs of one client come to never goes beyond its quota, whoever orders them and whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import PATIENCE, Works

from joblet.access import Quota
from joblet.engine import WorkflowOrder
from joblet.errors import InvalidWorkflow, PermissionDenied, QueueFull, QuotaExceeded, StoreFailed
from joblet.job import Limits, State
from joblet.life import Live
from joblet.order import Order
from joblet.quotas import Need, Quotas, Room
from joblet.workflow.condition import End
from joblet.workflow.plan import WorkflowState

pytestmark = pytest.mark.timeout(30)

QUOTAS = {"developer": Quota(jobs=3, cpu=400, memory=2048), "admin": Quota()}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Works]:
    site = Works(tmp_path, slots=20, queue=1, quotas=QUOTAS)
    yield site
    for job in list(site.host.under_way.values()):
        job.end(code=0)
    await site.close()


async def order(site: Works, *, cpu: int = 0, memory: int = 0, owner: str = "alice", role: str = "developer") -> Live:
    return await site.runner.submit(Order("scripted", limits=Limits(cpu, memory, 0)), owner, role)


async def flow(site: Works, text: str) -> int:
    """A workflow of a developer."""
    return (await site.engine.submit(WorkflowOrder("test.yaml", text), "alice", "developer")).id


def steps(count: int, **more: object) -> str:
    """So many that do not wait for each other."""
    jobs = ", ".join(f"s{number}: {{command: scripted}}" for number in range(count))
    return f"jobs: {{{jobs}}}"


async def end_all(site: Works, workflow_id: int) -> int:
    """End what runs until the workflow is over; how many ran at once."""
    most = 0
    async with asyncio.timeout(PATIENCE):
        while (await site.engine.get(str(workflow_id))).ended_at is None:
            running = list(site.host.under_way.values())
            most = max(most, len(running))
            if running:
                running[0].end(code=0)
            await asyncio.sleep(0.001)
    return most


async def test_of_orders_that_come_at_once_as_many_are_taken_as_there_is_room_for(site: Works) -> None:
    made = await asyncio.gather(*(order(site) for _ in range(10)), return_exceptions=True)
    taken = [each for each in made if isinstance(each, Live)]
    refused = {str(each) for each in made if isinstance(each, QuotaExceeded)}
    text = "quota exceeded: jobs would be 4 with this one (at most 3, access.roles.developer.quota.jobs)"
    assert (len(taken), refused) == (3, {text})
    assert [job.owner for job in await site.store.newest(10, 100)] == ["alice"] * 3


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"cpu": 301}, "cpu would be 401 with this one (at most 400, access.roles.developer.quota.cpu)"),
        ({"memory": 1537}, "memory would be 2049 with this one (at most 2048, access.roles.developer.quota.memory)"),
    ],
)
async def test_limits_are_summed(site: Works, asked: dict[str, int], text: str) -> None:
    await order(site)  # 100 % and 512 MB
    with pytest.raises(QuotaExceeded, match=rf"^quota exceeded: {text}$".replace("(", r"\(").replace(")", r"\)")):
        await order(site, **asked)
    await order(site, **{name: value - 1 for name, value in asked.items()})


async def test_it_is_the_client_s_whatever_others_and_other_roles_have(site: Works) -> None:
    for _ in range(5):
        await order(site, role="admin")
    with pytest.raises(QuotaExceeded, match="jobs would be 6"):
        await order(site)  # the same client
    await order(site, owner="bob")
    await order(site, role="admin")


async def test_what_ends_or_was_never_made_makes_room(site: Works) -> None:
    lives = [await order(site) for _ in range(3)]
    site.host.under_way[lives[1].job.id].end(code=1)
    await site.ended(lives[1])
    await order(site)
    await site.runner.stop(str(lives[0].job.id), "stopped by bob")
    with site.disk_full("INSERT"), pytest.raises(StoreFailed):
        await order(site)
    await order(site)
    with pytest.raises(QuotaExceeded):
        await order(site)


async def test_a_full_queue_takes_none_of_it(tmp_path: Path) -> None:
    site = Works(tmp_path, slots=1, queue=1, quotas=QUOTAS)
    lives = [await order(site), await order(site)]
    for _ in range(3):
        with pytest.raises(QueueFull):
            await order(site)
    await lives[0].launched.wait()
    site.host.under_way[lives[0].job.id].end(code=0)
    await lives[1].launched.wait()
    lives.append(await order(site))
    site.host.under_way[lives[1].job.id].end(code=0)
    await lives[2].launched.wait()
    site.host.under_way[lives[2].job.id].end(code=0)
    await site.ended(lives[2])
    await site.close()


async def test_an_order_that_is_repeated_takes_nothing(site: Works) -> None:
    keyed = Order("scripted", key="k")
    made = await asyncio.gather(*(site.runner.submit(keyed, "alice", "developer") for _ in range(3)))
    assert {live.job.id for live in made} == {1}
    await order(site)
    await order(site)
    assert (await site.runner.submit(keyed, "alice", "developer")).job.id == 1


async def test_a_restart_forgets_nothing(site: Works) -> None:
    for _ in range(3):
        await order(site)
    await site.restart()
    with pytest.raises(QuotaExceeded, match="jobs would be 4"):
        await order(site)
    site.host.under_way[2].end(code=0)
    await site.ended(site.live(2))
    await order(site)


async def test_a_quota_that_is_lower_after_a_restart_ends_nothing(site: Works) -> None:
    for _ in range(3):
        await order(site)
    site.quotas = {"developer": Quota(jobs=1)}
    await site.restart()
    assert [job.state for job in await site.store.newest(10, 100)] == [State.RUNNING] * 3
    for number in (1, 2):
        site.host.under_way[number].end(code=0)
        await site.ended(site.live(number))
    with pytest.raises(QuotaExceeded, match="jobs would be 2"):
        await order(site)


async def test_steps_wait_for_room(site: Works) -> None:
    workflow_id = await flow(site, steps(10))
    assert await end_all(site, workflow_id) == 3
    workflow = await site.over(workflow_id)
    assert (workflow.state, workflow.completed) == (WorkflowState.COMPLETED, 10)
    for _ in range(3):
        await order(site)  # all of the room is there again


async def test_steps_and_jobs_share_it(site: Works) -> None:
    lives = [await order(site), await order(site)]
    workflow_id = await flow(site, steps(3))
    (step,) = await site.under_way("s0")
    with pytest.raises(QuotaExceeded):
        await order(site)
    step.end(code=0)
    await site.under_way("s1")
    assert len(site.host.under_way) == 3
    for live in lives:
        site.host.under_way[live.job.id].end(code=0)
    await end_all(site, workflow_id)


async def test_a_restart_lets_steps_wait_on(site: Works) -> None:
    workflow_id = await flow(site, steps(6))
    await site.under_way("s0", "s1", "s2")
    await site.restart()
    assert await end_all(site, workflow_id) == 3
    assert (await site.over(workflow_id)).completed == 6


async def test_a_workflow_that_is_stopped_waits_no_longer(site: Works) -> None:
    workflow_id = await flow(site, steps(6))
    await site.under_way("s0", "s1", "s2")
    workflow = await site.engine.stop(str(workflow_id), "stopped by bob")
    assert (workflow.stopped, workflow.canceled) == (3, 3)
    for _ in range(3):
        await order(site)


async def test_a_stop_before_a_step_has_come_to_wait_is_one_too(site: Works) -> None:
    for _ in range(3):
        await order(site)
    workflow_id = await flow(site, steps(2))
    async with asyncio.timeout(PATIENCE):
        workflow = await site.engine.stop(str(workflow_id), "stopped by bob")
    assert workflow.canceled == 2


async def test_a_step_for_which_there_never_is_room_is_a_fault_of_the_file(site: Works) -> None:
    with pytest.raises(InvalidWorkflow, match=r'job "b": quota exceeded: memory would be 4096 with this one'):
        await flow(site, "jobs: {a: {command: scripted}, b: {command: scripted, resources: {max_memory: 4096}}}")


async def test_a_step_for_which_there_is_no_room_any_more_fails(site: Works) -> None:
    workflow_id = await flow(
        site, "jobs: {a: {command: scripted}, b: {command: scripted, resources: {max_memory: 2048}, requires: [a]}}"
    )
    await site.under_way("a")
    site.quotas = {"developer": Quota(memory=1024)}
    await site.restart()
    site.host.under_way[1].end(code=0)
    assert (await site.over(workflow_id)).state is WorkflowState.FAILED
    text = "quota exceeded: memory would be 2048 with this one (at most 1024, access.roles.developer.quota.memory)"
    assert (await site.records(workflow_id))["b"].reason == text


async def test_workflows_are_counted_until_they_end(site: Works) -> None:
    site.quotas = {"developer": Quota(workflows=2)}
    await site.restart()
    ordered = await asyncio.gather(*(flow(site, steps(2)) for _ in range(4)), return_exceptions=True)
    taken = [each for each in ordered if isinstance(each, int)]
    refused = {str(each) for each in ordered if isinstance(each, QuotaExceeded)}
    text = "quota exceeded: workflows would be 3 with this one (at most 2, access.roles.developer.quota.workflows)"
    assert (len(taken), refused) == (2, {text})
    await site.restart()
    with pytest.raises(QuotaExceeded, match="workflows would be 3"):
        await flow(site, steps(2))
    await site.engine.stop(str(taken[0]), "stopped by bob")
    other = await flow(site, steps(1))  # there is room for one
    with pytest.raises(QuotaExceeded):
        await site.engine.retry(str(taken[0]))
    await site.engine.stop(str(other), "stopped by bob")
    assert (await site.engine.retry(str(taken[0]))).state in (WorkflowState.PENDING, WorkflowState.RUNNING)


async def test_of_a_role_that_is_gone_nothing_more_comes(site: Works) -> None:
    workflow_id = await flow(site, "jobs: {a: {command: scripted}, b: {command: scripted, requires: [a]}}")
    await site.under_way("a")
    site.quotas = {"admin": Quota()}
    await site.restart()
    site.host.under_way[1].end(code=0)
    assert (await site.over(workflow_id)).state is WorkflowState.FAILED
    records = await site.records(workflow_id)
    assert (records["a"].end, records["b"].reason) == (
        End.COMPLETED,
        "role developer is not allowed to perform operation run_job",
    )
    with pytest.raises(PermissionDenied):
        await order(site)
    await order(site, role="admin")
    await order(site, role="")  # of a joblet that kept no roles


# The account itself, by a model: a list of what is held.

needs = st.builds(Need, st.just(1), st.integers(0, 3), st.integers(0, 3))


@given(st.lists(st.tuples(st.sampled_from(["take", "queue", "leave", "cancel"]), needs, st.integers(0, 9))))
def test_the_bound_holds_and_nobody_who_fits_is_left_waiting(moves: list[tuple[str, Need, int]]) -> None:
    quota = Quota(jobs=4, cpu=5, memory=5)

    def fits(held: list[tuple[Room, Need]], need: Need) -> bool:
        total = need
        for _, each in held:
            total = total.plus(each)
        return total.jobs <= 4 and (total.cpu <= 5 or not need.cpu) and (total.memory <= 5 or not need.memory)

    async def play() -> None:
        quotas = Quotas({"r": quota})
        held: list[tuple[Room, Need]] = []
        waiting: list[tuple[asyncio.Future[Room], Need]] = []
        for move, need, number in moves:
            if move == "take":
                fitting = fits(held, need)
                try:
                    held.append((quotas.take("a", "r", need), need))
                except QuotaExceeded:
                    assert not fitting
                else:
                    assert fitting
            elif move == "queue":
                waiting.append((quotas.queue("a", "r", need), need))
            elif move == "leave" and held:
                held.pop(number % len(held))[0].leave()
            elif move == "cancel" and waiting:
                waiting[number % len(waiting)][0].cancel()
            await asyncio.sleep(0)
            while waiting and waiting[0][0].done():
                turn, its = waiting.pop(0)
                if not turn.cancelled():
                    held.append((turn.result(), its))
            waiting = [each for each in waiting if not each[0].cancelled()]
            assert not any(turn.done() for turn, _ in waiting)  # one after the other
            assert not waiting or not fits(held, waiting[0][1])
            assert len(held) <= 4
            assert sum(each.cpu for _, each in held) <= 5
            assert sum(each.memory for _, each in held) <= 5
        for room, _ in held:
            room.leave()
            room.leave()

    asyncio.run(play())

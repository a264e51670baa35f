from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from joblet.admission import Admission
from joblet.errors import QueueFull


async def test_a_free_slot_is_taken_at_once() -> None:
    admission = Admission(2, 5)
    assert admission.reserve()
    assert admission.reserve()
    assert not admission.reserve()


async def test_a_released_slot_goes_to_the_job_that_has_waited_longest() -> None:
    admission = Admission(1, 5)
    admission.reserve()
    turns = []
    for job_id in (2, 3):
        assert not admission.reserve()
        turns.append(admission.enqueue(job_id, 0, reserved=True))
    admission.release()
    assert [turn.done() for turn in turns] == [True, False]
    admission.release()
    assert turns[1].done()


async def test_a_full_queue_refuses_with_its_numbers() -> None:
    admission = Admission(1, 2)
    admission.reserve()
    assert not admission.reserve()
    admission.enqueue(1, 0, reserved=True)
    assert not admission.reserve()
    with pytest.raises(QueueFull) as refusal:
        admission.reserve()
    assert str(refusal.value) == "job creation failed: 1 jobs are running and the queue of 2 is full"


async def test_a_place_given_up_can_be_had_again() -> None:
    admission = Admission(1, 1)
    admission.reserve()
    admission.reserve()
    admission.cancel_reservation()
    assert not admission.reserve()


async def test_without_a_queue_a_job_runs_at_once_or_is_refused() -> None:
    admission = Admission(1, 0)
    assert admission.reserve()
    with pytest.raises(QueueFull):
        admission.reserve()
    admission.release()
    assert admission.reserve()


async def test_a_job_whose_place_is_being_stored_is_not_overtaken() -> None:
    admission = Admission(1, 5)
    admission.reserve()
    assert not admission.reserve()
    admission.release()
    assert not admission.reserve(), "the slot is free, but a job is before this one"
    assert admission.enqueue(7, 0, reserved=True).done()


async def test_a_place_given_up_lets_nobody_wait_for_a_free_slot() -> None:
    admission = Admission(1, 5)
    admission.reserve()
    admission.reserve()
    admission.release()
    admission.cancel_reservation()
    assert admission.reserve()


async def test_a_withdrawn_job_is_told_and_leaves_the_others_in_order() -> None:
    admission = Admission(1, 5)
    admission.occupy()
    turns = {job_id: admission.enqueue(job_id, 0, reserved=False) for job_id in (5, 6, 7)}
    assert admission.withdraw(6)
    assert turns[6].cancelled()
    assert [admission.place(job_id) for job_id in (5, 6, 7)] == [1, 0, 2]
    assert not admission.withdraw(6)


async def test_a_job_with_a_slot_cannot_be_withdrawn() -> None:
    admission = Admission(1, 5)
    turn = admission.enqueue(1, 0, reserved=False)
    assert turn.done()
    assert not admission.withdraw(1)
    assert not turn.cancelled()


async def test_jobs_found_running_may_exceed_the_slots_and_then_nobody_is_admitted_before_they_end() -> None:
    admission = Admission(1, 5)
    admission.occupy()
    admission.occupy()
    turn = admission.enqueue(3, 0, reserved=False)
    admission.release()
    assert not turn.done()
    admission.release()
    assert turn.done()


async def test_recovered_jobs_may_exceed_the_queue_and_then_new_ones_are_refused() -> None:
    admission = Admission(1, 1)
    admission.occupy()
    for job_id in (2, 3, 4):
        admission.enqueue(job_id, 0, reserved=False)
    assert admission.place(4) == 3
    with pytest.raises(QueueFull):
        admission.reserve()


async def test_a_waiter_that_was_cancelled_does_not_break_the_queue_behind_it() -> None:
    admission = Admission(1, 5)
    admission.reserve()
    admission.enqueue(1, 0, reserved=False).cancel()
    behind = admission.enqueue(2, 0, reserved=False)
    admission.release()
    assert behind.done()


class AdmissionAgainstModel(RuleBasedStateMachine):
    """The model: a set of holders, of those who have yet to come, a list of waiting jobs, a number of reservations."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ids = itertools.count(1)
        self.holders = 0
        self.waiting: list[int] = []
        self.coming: list[int] = []
        self.reserved = 0
        self.excess = 0
        self.turns: dict[int, asyncio.Future[None]] = {}
        self.slots, self.length = 2, 3
        self.admission = Admission(self.slots, self.length)

    def teardown(self) -> None:
        self.loop.close()

    def admit(self) -> None:
        while self.waiting and self.holders < self.slots:
            self.holders += 1
            self.coming.append(self.waiting.pop(0))
            assert self.turns.pop(self.coming[-1]).done()

    def enqueue_for_real(self, *, reserved: bool) -> None:
        async def enqueue(job_id: int) -> asyncio.Future[None]:
            return self.admission.enqueue(job_id, 0, reserved=reserved)

        job_id = next(self.ids)
        self.turns[job_id] = self.loop.run_until_complete(enqueue(job_id))
        self.waiting.append(job_id)
        self.admit()

    @rule()
    def reserve(self) -> None:
        free = self.holders < self.slots and not (self.waiting or self.reserved or self.coming)
        full = len(self.waiting) + self.reserved >= self.length
        if full and not free:
            with pytest.raises(QueueFull):
                self.admission.reserve()
            return
        assert self.admission.reserve() is free
        if free:
            self.holders += 1
        else:
            self.reserved += 1

    @precondition(lambda self: self.reserved)
    @rule()
    def enqueue(self) -> None:
        self.reserved -= 1
        self.enqueue_for_real(reserved=True)

    @rule()
    def enqueue_recovered(self) -> None:
        self.enqueue_for_real(reserved=False)

    @precondition(lambda self: self.reserved)
    @rule()
    def cancel_reservation(self) -> None:
        self.admission.cancel_reservation()
        self.reserved -= 1

    @rule()
    def occupy(self) -> None:
        self.admission.occupy()
        self.holders += 1
        self.excess = max(self.excess, self.holders - self.slots)

    @precondition(lambda self: self.coming)
    @rule(pick=st.integers(0, 100))
    def come(self, pick: int) -> None:
        self.admission.come(self.coming.pop(pick % len(self.coming)))

    @precondition(lambda self: self.holders)
    @rule()
    def release(self) -> None:
        self.admission.release()
        self.holders -= 1
        self.admit()

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 100))
    def withdraw(self, pick: int) -> None:
        job_id = self.waiting.pop(pick % len(self.waiting))
        assert self.admission.withdraw(job_id)
        assert self.turns.pop(job_id).cancelled()

    @invariant()
    def nobody_is_admitted_beyond_the_slots_or_out_of_order(self) -> None:
        assert not any(turn.done() for turn in self.turns.values())
        assert [self.admission.place(job_id) for job_id in self.waiting] == list(range(1, len(self.waiting) + 1))

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        assert not self.waiting or self.holders >= self.slots


TestAdmissionAgainstModel = AdmissionAgainstModel.TestCase
TestAdmissionAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

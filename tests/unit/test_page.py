"""The answer to ListJobs: what another library decodes, and never more than there is room for."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.page import JobEncoder, Page

DESCRIPTORS = Descriptors()
ENCODER = JobEncoder(DESCRIPTORS, pb.Job)
TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
INT32 = st.integers(-(2**31), 2**31 - 1)


def decoded(page: Page, *, more: bool = False) -> Message:
    return DESCRIPTORS.message("Jobs").FromString(page.message(more=more).wire)


@given(
    st.fixed_dictionaries(
        {
            "id": TEXT,
            "command": TEXT,
            "args": st.lists(TEXT, max_size=5),
            "status": TEXT,
            "max_cpu": INT32,
            "max_iobps": INT32,
            "timeout_ms": st.integers(-(2**63), 2**63 - 1),
            "key": TEXT,
        }
    )
)
def test_it_is_encoded_as_the_other_library_does(values: dict[str, Any]) -> None:
    wire = ENCODER.encode(values)
    assert pb.Job.parse(wire) == pb.Job(**values)
    assert DESCRIPTORS.message("Job").FromString(bytes(pb.Job(**values))).SerializeToString() == wire


@given(st.lists(st.integers(0, 40_000), max_size=8), st.integers(0, 100_000))
def test_it_holds_the_newest_that_there_is_room_for_oldest_first(sizes: list[int], room: int) -> None:
    page = Page(room)
    added = 0
    for number, size in enumerate(sizes):
        if not page.add(ENCODER.encode({"id": str(number), "command": "x" * size})):
            break
        added += 1
    assert len(page) == added
    message: Any = decoded(page, more=True)
    assert message.more
    assert [job.id for job in message.jobs] == [str(number) for number in reversed(range(added))]
    assert message.ByteSize() <= room or added <= 1
    if added < len(sizes):
        one_more = message.ByteSize() + sizes[added]
        assert one_more + 20 > room


def test_an_empty_page_says_nothing() -> None:
    assert Page(100).message(more=False).wire == b""


def test_a_field_that_no_job_has_is_refused() -> None:
    with pytest.raises(KeyError):
        ENCODER.encode({"surname": "x"})

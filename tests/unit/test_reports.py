"""What clients can cause as often as they like does not fill the server's log."""

from __future__ import annotations

import asyncio

import pytest

from joblet.server import reports as module
from joblet.server.reports import Reports


async def test_the_first_lines_of_a_kind_are_told_and_the_others_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.1)
    reports = Reports(most=3)
    for peer in range(100):
        reports.tell("too many", peer=peer)
    reports.tell("too few", peer=0)
    assert [record.message for record in caplog.records] == [*["too many"] * 3, "too few"]
    await asyncio.sleep(0.3)
    reports.tell("too many", peer=100)
    told = [(record.message, record.__dict__["joblet_fields"]) for record in caplog.records[4:]]
    assert told == [("too many", {"leftOut": 97, "seconds": 0}), ("too many", {"peer": 100})]

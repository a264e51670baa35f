"""How long a client tries to reach a server that has gone, and which errors are worth another try."""

from __future__ import annotations

import asyncio

import pytest

from joblet.client import (
    CertificateRejected,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    Internal,
    JobletError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from joblet.client._patience import Patience

LOST = ConnectionLost("connection to host:1 lost: connection reset by peer")
REFUSED = ConnectionFailed("cannot connect to host:1: connection refused")


async def raised(patience: Patience, error: JobletError) -> JobletError | None:
    """What `wait` raises after an error, or None when it lets the caller try again."""
    try:
        await patience.wait(error)
    except JobletError as verdict:
        return verdict
    return None


@pytest.mark.parametrize("error", [LOST, Unavailable("server is shutting down"), DeadlineExceeded("no answer")])
async def test_a_server_that_goes_is_tried_again(error: JobletError) -> None:
    patience = Patience(60)
    assert await raised(patience, error) is None
    assert await raised(patience, REFUSED) is None  # it is about to start again


@pytest.mark.parametrize(
    "error",
    [
        NotFound("job not found: 1"),
        Internal("internal error"),
        ResourceExhausted("the queue is full"),
        CertificateRejected("certificate verify failed"),
    ],
)
async def test_an_answer_is_an_answer(error: JobletError) -> None:
    patience = Patience(60)
    patience.renew()
    assert await raised(patience, error) is error
    assert await raised(patience, LOST) is None
    assert await raised(patience, error) is error


async def test_a_server_never_reached_is_told_at_once() -> None:
    assert await raised(Patience(60), REFUSED) is REFUSED


async def test_a_server_reached_before_may_refuse_for_a_while() -> None:
    patience = Patience(60)
    patience.renew()
    assert await raised(patience, REFUSED) is None


async def test_without_patience_every_error_is_told() -> None:
    patience = Patience(0)
    patience.renew()
    assert await raised(patience, LOST) is LOST


async def test_patience_ends_with_the_last_reason() -> None:
    patience = Patience(0.3)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await raised(patience, LOST) is None
    while (verdict := await raised(patience, REFUSED)) is None:
        assert loop.time() < begun + 30
    assert loop.time() - begun >= 0.3
    assert type(verdict) is ConnectionLost
    assert str(verdict) == "cannot connect to host:1: connection refused (tried again for 0.3 s)"


async def test_an_answer_renews_it() -> None:
    patience = Patience(0.3)
    loop = asyncio.get_running_loop()
    until = loop.time() + 1
    while loop.time() < until:
        assert await raised(patience, LOST) is None
        patience.renew()

"""Sessions of the client at running jobs, against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable

import pytest
from harness import PATIENCE, Server, poll_until

from joblet.client import (
    Client,
    ClientConfig,
    ConnectionFailed,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Session,
    Terminal,
    Unavailable,
    sync,
)


def config_of(server: Server) -> ClientConfig:
    names = ("admin-cert", "admin-key", "ca-cert")
    files = (str(server.certificates / f"{name}.pem") for name in names)
    return ClientConfig(f"localhost:{server.port}", *files)


def talk(server: Server, talking: Callable[[Client], Awaitable[None]]) -> None:
    async def session() -> None:
        async with asyncio.timeout(PATIENCE), Client(config_of(server)) as client:
            await talking(client)

    asyncio.run(session())


async def read_until(session: Session, text: bytes) -> bytes:
    output = b""
    async for chunk in session:
        output += chunk
        if text in output:
            return output
    raise AssertionError(output)


def test_a_conversation(server: Server) -> None:
    async def talking(client: Client) -> None:
        job = await client.run("cat", stdin=True)
        async with job.attach() as session:
            await session.write(b"question\n")
            assert await read_until(session, b"\n") == b"question\n"
            await session.write(b"another\n")
            await session.end()
            assert session.sent == session.taken == 17
            assert [chunk async for chunk in session] == [b"another\n"]
        assert (await job.wait()).exit_code == 0

    talk(server, talking)


def test_leaving_waits_until_all_is_taken(server: Server) -> None:
    data = os.urandom(3 << 20)

    async def talking(client: Client) -> None:
        job = await client.run("sha256sum", stdin=True)
        async with job.attach() as session:
            await session.write(data)
        assert session.taken == len(data)
        async with job.attach() as session:
            await session.end()
            assert (await read_until(session, b"\n")).split()[0].decode() == hashlib.sha256(data).hexdigest()

    talk(server, talking)


def test_a_terminal(server: Server) -> None:
    async def talking(client: Client) -> None:
        script = "trap 'stty size' WINCH; trap 'exit 5' INT; echo ready; while :; do sleep 0.02; done"
        job = await client.run("bash", "-c", script, terminal=Terminal(24, 80))
        async with client.attach(job.id) as session:
            assert session.job.terminal == Terminal(24, 80)
            await read_until(session, b"ready")
            await session.resize(50, 100)
            await read_until(session, b"50 100")
            with pytest.raises(InvalidArgument, match="0 rows"):
                await session.resize(0, 100)
            await session.write(b"\x03")
        assert (await job.wait()).exit_code == 5

    talk(server, talking)


def test_what_cannot_be_sent_to(server: Server) -> None:
    async def talking(client: Client) -> None:
        silent = await client.run("sleep", "1000")
        with pytest.raises(FailedPrecondition, match=f"job takes no input: {silent.id}"):
            await silent.attach().__aenter__()
        async with silent.attach(stdin=False) as session:
            with pytest.raises(RuntimeError, match="without stdin"):
                await session.write(b"x")
        await silent.stop()
        with pytest.raises(NotFound):
            await client.attach("999999").__aenter__()
        ended = await client.run("echo", "done", stdin=True)
        await ended.wait()
        async with ended.attach() as session:
            assert [chunk async for chunk in session] == [b"done\n"]
            with pytest.raises(FailedPrecondition, match=f"job is not running: {ended.id}"):
                await session.end()

    talk(server, talking)


def test_a_job_that_closes_its_input_says_so_to_a_writer_that_waits(server: Server) -> None:
    async def talking(client: Client) -> None:
        job = await client.run("bash", "-c", "head -c 5; exec sleep 1000 <&-", stdin=True)
        async with job.attach() as session:
            with pytest.raises(FailedPrecondition, match=f"the input of job {job.id} has ended"):
                await session.write(b"x" * (16 << 20))
            assert 5 <= session.taken < 16 << 20
        await job.stop()

    talk(server, talking)


def test_a_cancelled_session_frees_its_streams(server: Server) -> None:
    async def talking(client: Client) -> None:
        job = await client.run("sh", "-c", "echo there; exec sleep 1000", stdin=True)
        waiting = asyncio.Event()

        async def hold() -> None:
            async with job.attach() as session:
                await read_until(session, b"there")
                waiting.set()
                await session.write(b"x" * (16 << 20))  # which nobody reads

        holding = asyncio.create_task(hold())
        await waiting.wait()
        fifo = server.state / "jobs" / job.id / "input"
        await asyncio.to_thread(poll_until, lambda: bool(server.descriptors_of(fifo)))
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await asyncio.to_thread(poll_until, lambda: not server.descriptors_of(fifo))
        await job.stop()

    talk(server, talking)


def test_a_lost_server_is_told_with_what_was_taken(make_server: Callable[..., Server]) -> None:
    server = make_server().start()

    async def talking(client: Client) -> None:
        job = await client.run("cat", stdin=True)
        async with job.attach(reconnect=True) as session:
            await session.write(b"before\n")
            await session.flush()
            await session.write(b"perhaps\n")
            await read_until(session, b"perhaps\n")
            await asyncio.to_thread(server.kill)
            with pytest.raises((ConnectionFailed, Unavailable)):
                await session.flush()
            assert (session.sent, session.taken) == (15, 7)
            await asyncio.to_thread(server.start)
            await session.write(b"after\n")
            await session.end()
            assert [chunk async for chunk in session] == [b"after\n"]

    talk(server, talking)


def test_a_session_that_blocks(server: Server) -> None:
    with sync.Client(config_of(server)) as client:
        job = client.run("cat", stdin=True)
        with job.attach() as session:
            assert session.job.id == job.id
            sending = threading.Thread(target=lambda: (session.write(b"from a thread\n"), session.end()))
            sending.start()
            assert b"".join(session) == b"from a thread\n"
            sending.join()
            assert session.sent == session.taken == 14
        with pytest.raises(FailedPrecondition, match="takes no input"), client.attach(client.run("true").id):
            raise AssertionError

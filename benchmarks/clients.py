"""Clients in a process of their own; what they have measured is printed as JSON.

calls PORT CERTIFICATES JOB CONNECTIONS COUNT PID   GetJobStatus, so many in all, one after the other on each
logs PORT CERTIFICATES JOBS FOLLOWERS BYTES         GetJobLogs to its end, by so many at once (of ids with commas)
live PORT CERTIFICATES COMMAND BYTES                RunJob, and its log to the end
delays PORT CERTIFICATES COMMAND LINES              RunJob of what writes the times of its writing, a line each
relay_live, relay_delays                            the same of benchmarks.relay; COMMAND is JSON for all of these

Those of joblet and of benchmarks.reference are stock gRPC clients (grpc.aio).
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.reference import FOLLOW, RUN, STATUS, by_id, id_of, order, payload_of
from benchmarks.site import cpu_seconds

LARGEST = 64 << 10


def channel(port: str, certificates: str) -> grpc.aio.Channel:
    """A connection that is no other's."""
    ca, key, cert = (
        (Path(certificates) / name).read_bytes() for name in ("ca-cert.pem", "admin-key.pem", "admin-cert.pem")
    )
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca, key, cert), options)


async def calls(
    port: str, certificates: str, job_id: str, connections: str, count: str, pid: str
) -> dict[str, float | list[float]]:
    channels = [channel(port, certificates) for _ in range(int(connections))]
    each = max(1, int(count) // len(channels))
    times: list[float] = []
    request = by_id(job_id)

    async def one(own: grpc.aio.Channel) -> None:
        call = own.unary_unary(STATUS)
        for _ in range(each):
            began = time.perf_counter()
            await call(request)
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(own.unary_unary(STATUS)(request) for own in channels))  # connects
    cost = cpu_seconds(int(pid))
    began = time.perf_counter()
    await asyncio.gather(*map(one, channels))
    seconds = time.perf_counter() - began
    cost = cpu_seconds(int(pid)) - cost
    await asyncio.gather(*(own.close() for own in channels))
    return {"seconds": seconds, "times": times, "cost": cost}


async def logs(port: str, certificates: str, jobs: str, followers: str, size: str) -> dict[str, float]:
    ids = jobs.split(",")
    channels = {channel(port, certificates): ids[number % len(ids)] for number in range(int(followers))}
    await asyncio.gather(*(own.channel_ready() for own in channels))

    async def one(own: grpc.aio.Channel, job_id: str) -> None:
        received = 0
        async for message in own.unary_stream(FOLLOW)(by_id(job_id)):
            received += len(message)
        assert received >= int(size), f"{received} bytes of {size}"

    began = time.perf_counter()
    await asyncio.gather(*(one(own, job_id) for own, job_id in channels.items()))
    seconds = time.perf_counter() - began
    await asyncio.gather(*(own.close() for own in channels))
    return {"seconds": seconds}


async def live(port: str, certificates: str, command: str, size: str) -> dict[str, float]:
    async with channel(port, certificates) as own:
        await own.channel_ready()
        began = time.perf_counter()
        received = 0
        async for message in _output(own, command):
            received += len(payload_of(message))
        seconds = time.perf_counter() - began
    assert received == int(size), f"{received} bytes of {size}"
    return {"seconds": seconds}


async def delays(port: str, certificates: str, command: str, lines: str) -> dict[str, list[float]]:
    async with channel(port, certificates) as own:
        received = [(time.time_ns(), payload_of(message)) async for message in _output(own, command)]
    return {"times": _delays(received, int(lines))}


async def _output(own: grpc.aio.Channel, command: str) -> AsyncIterator[bytes]:
    """What a job writes whose command this is; of the reference, what it has by that name."""
    answer = await own.unary_unary(RUN)(order(json.loads(command)))
    async for message in own.unary_stream(FOLLOW)(by_id(id_of(answer))):
        yield message


def _delays(received: Iterable[tuple[int, bytes]], lines: int) -> list[float]:
    """Seconds from a line's writing to its receipt, of the last so many."""
    found: list[float] = []
    rest = b""
    for now, piece in received:
        *whole, rest = (rest + piece).split(b"\n")
        found += [(now - int(line)) / 1e9 for line in whole]
    assert len(found) >= lines, f"{len(found)} lines of {lines}"
    return found[-lines:]


async def relay_live(port: str, certificates: str, command: str, size: str) -> dict[str, float]:
    received = 0
    with _relay(port, certificates) as connection:
        began = time.perf_counter()
        for piece in _relayed(connection, command):
            received += len(piece)
        seconds = time.perf_counter() - began
    assert received == int(size), f"{received} bytes of {size}"
    return {"seconds": seconds}


async def relay_delays(port: str, certificates: str, command: str, lines: str) -> dict[str, list[float]]:
    with _relay(port, certificates) as connection:
        received = [(time.time_ns(), piece) for piece in _relayed(connection, command)]
    return {"times": _delays(received, int(lines))}


@contextmanager
def _relay(port: str, certificates: str) -> Iterator[ssl.SSLSocket]:
    folder = Path(certificates)
    context = ssl.create_default_context(cafile=folder / "ca-cert.pem")
    context.load_cert_chain(folder / "admin-cert.pem", folder / "admin-key.pem")
    with (
        socket.create_connection(("localhost", int(port))) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def _relayed(connection: ssl.SSLSocket, command: str) -> Iterator[bytes]:
    connection.sendall(command.encode() + b"\n")
    while piece := connection.recv(LARGEST):
        yield piece


COROUTINES: dict[str, Any] = {
    "calls": calls,
    "logs": logs,
    "live": live,
    "delays": delays,
    "relay_live": relay_live,
    "relay_delays": relay_delays,
}
print(json.dumps(uvloop.run(COROUTINES[sys.argv[1]](*sys.argv[2:]))))

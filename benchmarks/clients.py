"""Stock gRPC clients (grpc.aio), in a process of their own; what they have measured is printed as JSON.

calls PORT CERTIFICATES JOB CONNECTIONS COUNT     GetJobStatus, so many in all, one after the other on each
logs PORT CERTIFICATES JOB FOLLOWERS BYTES        GetJobLogs to its end, by so many at once
delays PORT CERTIFICATES JOB LINES                how long the last lines take, which hold the times of their writing
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import uvloop

from benchmarks.measure import percentile
from benchmarks.reference import FOLLOW, STATUS, by_id, payload_of


def channel(port: str, certificates: str) -> grpc.aio.Channel:
    """A connection that is no other's."""
    ca, key, cert = (
        (Path(certificates) / name).read_bytes() for name in ("ca-cert.pem", "admin-key.pem", "admin-cert.pem")
    )
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca, key, cert), options)


async def calls(port: str, certificates: str, job_id: str, connections: str, count: str) -> dict[str, float]:
    channels = [channel(port, certificates) for _ in range(int(connections))]
    each = max(1, int(count) // len(channels))
    took: list[float] = []
    request = by_id(job_id)

    async def one(own: grpc.aio.Channel) -> None:
        call = own.unary_unary(STATUS)
        for _ in range(each):
            began = time.perf_counter()
            await call(request)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(own.unary_unary(STATUS)(request) for own in channels))  # connects
    began = time.perf_counter()
    await asyncio.gather(*map(one, channels))
    seconds = (time.perf_counter() - began) * int(count) / len(took)
    await asyncio.gather(*(own.close() for own in channels))
    return {"seconds": seconds, "p50": percentile(took, 0.5), "p99": percentile(took, 0.99)}


async def logs(port: str, certificates: str, job_id: str, followers: str, size: str) -> dict[str, float]:
    channels = [channel(port, certificates) for _ in range(int(followers))]
    await asyncio.gather(*(own.channel_ready() for own in channels))

    async def one(own: grpc.aio.Channel) -> None:
        received = 0
        async for message in own.unary_stream(FOLLOW)(by_id(job_id)):
            received += len(message)
        assert received >= int(size), f"{received} bytes of {size}"

    began = time.perf_counter()
    await asyncio.gather(*map(one, channels))
    seconds = time.perf_counter() - began
    await asyncio.gather(*(own.close() for own in channels))
    return {"seconds": seconds}


async def delays(port: str, certificates: str, job_id: str, lines: str) -> dict[str, float]:
    found: list[float] = []
    rest = b""
    async with channel(port, certificates) as own:
        async for message in own.unary_stream(FOLLOW)(by_id(job_id)):
            now = time.time_ns()
            *whole, rest = (rest + payload_of(message)).split(b"\n")
            found += [(now - int(line)) / 1e9 for line in whole]
    assert len(found) >= int(lines), f"{len(found)} lines of {lines}"
    found = found[-int(lines) :]
    return {"p50": percentile(found, 0.5), "p99": percentile(found, 0.99)}


print(json.dumps(uvloop.run({"calls": calls, "logs": logs, "delays": delays}[sys.argv[1]](*sys.argv[2:]))))

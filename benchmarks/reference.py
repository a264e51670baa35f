"""What a server in Python costs that has nothing to do but to answer: grpc.aio with the same calls, over the same TLS.

    python -m benchmarks.reference CERTIFICATES

prints its port and then serves until stdin ends. GetJobStatus has one answer, ready. RunJob runs nothing, and answers
with its command as the job's id. GetJobLogs sends what the id names: `BYTES:CHUNK` from memory, or with `delays:LINES`
lines that hold the time at which they were written.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from joblet.proto import joblet as pb

STATUS = "/joblet.JobletService/GetJobStatus"
FOLLOW = "/joblet.JobletService/GetJobLogs"
RUN = "/joblet.JobletService/RunJob"


def by_id(job_id: str) -> bytes:
    """The request of GetJobStatus and of GetJobLogs."""
    return bytes(pb.GetJobLogsReq(id=job_id))


def order(command: list[str]) -> bytes:
    """The request of RunJob."""
    return bytes(pb.RunJobReq(command=command[0], args=command[1:]))


def id_of(answer: bytes) -> str:
    """The id in an answer of RunJob."""
    return pb.RunJobRes.FromString(answer).id


def payload_of(message: bytes) -> bytes:
    """The bytes that a DataChunk holds."""
    return pb.DataChunk.FromString(message).payload


@dataclass(frozen=True)
class Serving:
    """A process that serves."""

    port: int
    pid: int


@contextmanager
def serving_reference(certificates: Path, module: str = "benchmarks.reference") -> Iterator[Serving]:
    """The reference in a process of its own, or another that is called the same way."""
    command = [sys.executable, "-m", module, str(certificates)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield Serving(int(process.stdout.readline()), process.pid)
        process.stdin.close()


class _Handler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        if details.method == STATUS:
            return grpc.unary_unary_rpc_method_handler(_status)
        if details.method == RUN:
            return grpc.unary_unary_rpc_method_handler(_run)
        if details.method == FOLLOW:
            return grpc.unary_stream_rpc_method_handler(_follow)
        return None


_ANSWER = pb.GetJobStatusRes(
    id="1", command="true", max_cpu=100, max_memory=512, status="COMPLETED", start_time="2024-01-15T10:30:00Z"
)


async def _status(request: bytes, context: object) -> bytes:
    asked = pb.GetJobStatusReq.FromString(request)
    _ANSWER.id = asked.id
    return bytes(_ANSWER)


async def _run(request: bytes, context: object) -> bytes:
    return bytes(pb.RunJobRes(id=pb.RunJobReq.FromString(request).command))


async def _follow(request: bytes, context: object) -> AsyncIterator[bytes]:
    first, _, second = pb.GetJobLogsReq.FromString(request).id.partition(":")
    if first == "delays":
        for _ in range(int(second)):
            yield bytes(pb.DataChunk(payload=b"%d\n" % time.time_ns()))
            await asyncio.sleep(0.002)
        return
    chunk = bytes(pb.DataChunk(payload=os.urandom(int(second))))
    for _ in range(int(first) // int(second)):
        yield chunk


async def _serve(certificates: Path) -> None:
    ca, key, cert = (
        (certificates / name).read_bytes() for name in ("ca-cert.pem", "server-key.pem", "server-cert.pem")
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Handler()])
    credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))

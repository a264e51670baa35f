"""The least that a unary call can take in this Python: grpclib with its own codec and no more, over TLS.

    python -m benchmarks.instructions.echo CERTIFICATES

prints its port and serves until stdin ends.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from pathlib import Path

import uvloop
from grpclib.server import Server

from joblet.proto import joblet as pb


class _Echo(pb.JobletServiceBase):
    async def get_job_status(self, message: pb.GetJobStatusReq) -> pb.GetJobStatusRes:
        return pb.GetJobStatusRes(id=message.id)


async def _serve(certificates: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca-cert.pem")
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server([_Echo()])
    await server.start(sock=listening, ssl=context)
    print(listening.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))

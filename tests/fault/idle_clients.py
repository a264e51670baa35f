"""Many idle clients in one process, for the test of many connections: `python idle_clients.py PORT CERTIFICATES COUNT`.

Writes `ready N` when N of them are connected, holds them, answering pings, until its input ends, and then closes them.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import uvloop
from hyperframe.frame import PingFrame
from raw_http2 import frames, greeting

_AT_A_TIME = 50
"""handshakes under way"""


class Client(asyncio.Protocol):
    """Says hello and answers pings."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(greeting())

    def data_received(self, data: bytes) -> None:
        self.data += data
        for frame in frames(self.data):
            if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.transport.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)


async def main(port: int, certificates: Path, count: int) -> None:
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificates / "admin-cert.pem", certificates / "admin-key.pem")
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(_AT_A_TIME)

    async def connect() -> Client:
        async with turn:
            _, client = await loop.create_connection(
                Client, "127.0.0.1", port, ssl=context, server_hostname="localhost", ssl_handshake_timeout=300
            )
            return client

    clients = await asyncio.gather(*(connect() for _ in range(count)))
    lost = sum(client.ended.done() for client in clients)
    print(f"ready {len(clients) - lost}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(f"lost {sum(client.ended.done() for client in clients)}", flush=True)
    for client in clients:
        client.transport.close()
    await asyncio.gather(*(client.ended for client in clients))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))

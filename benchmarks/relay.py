"""What output costs that goes from a program to a client with nothing between: a pipe, and a plain TLS socket.

    python -m benchmarks.relay CERTIFICATES

prints its port and then serves until stdin ends. A client sends a command as a line of JSON, and gets what it writes.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

LARGEST = 64 << 10
"""bytes that are read and sent at once"""


def serve(certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    context.load_verify_locations(certificates / "ca-cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening, context), daemon=True).start()
        print(listening.getsockname()[1], flush=True)
        sys.stdin.read()


def _accept(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        plain, _ = listening.accept()
        threading.Thread(target=_relay, args=(plain, context), daemon=True).start()


def _relay(plain: socket.socket, context: ssl.SSLContext) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_side=True) as connection:
        order = b""
        while not order.endswith(b"\n"):
            order += connection.recv(LARGEST)
        with subprocess.Popen(json.loads(order), stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(LARGEST):
                connection.sendall(piece)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

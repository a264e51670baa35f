"""`joblet` under valgrind: `python -m benchmarks.instructions.under_valgrind SOCKET ARGUMENT...`.

Valgrind up to 3.20 knows no pidfd_open(2), so whoever listens at SOCKET makes the call (Opener) and passes the result.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

_NUMBER = 4
"""bytes of a pid, and of an errno"""


class Opener:
    """Calls pidfd_open for another process, in a thread."""

    def __init__(self, path: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        self._listening.close()
        with connection:
            while asked := connection.recv(_NUMBER):
                try:
                    fd = os.pidfd_open(int.from_bytes(asked, sys.byteorder))
                except OSError as error:
                    connection.sendall((error.errno or 0).to_bytes(_NUMBER, sys.byteorder))
                    continue
                socket.send_fds(connection, [bytes(_NUMBER)], [fd])
                os.close(fd)


def ask_for_pidfds(path: str) -> None:
    """Have os.pidfd_open ask the Opener at `path`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    lock = threading.Lock()

    def pidfd_open(pid: int, flags: int = 0) -> int:
        with lock:
            connection.sendall(pid.to_bytes(_NUMBER, sys.byteorder))
            answer, fds, *_ = socket.recv_fds(connection, _NUMBER, 1)
        if number := int.from_bytes(answer, sys.byteorder):
            raise OSError(number, os.strerror(number))
        return fds[0]

    os.pidfd_open = pidfd_open


if __name__ == "__main__":
    ask_for_pidfds(sys.argv.pop(1))
    from joblet.cli import main

    main()

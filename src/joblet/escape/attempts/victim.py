"""A process that has secrets and holds still: what attempts are made on. A program of its own, run as a job:
`python3 -I -c SOURCE NAME SECRET ABSTRACT IPC_KEY PORT`."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

READY = "ready"


def keep_files(name: str, secret: str) -> None:
    for folder in (os.getcwd(), "/tmp", "/dev/shm"):
        with open(f"{folder}/{name}", "w") as file:
            file.write(secret)


def listen(address: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(address)
    one.listen(16)
    return one


def keep_memory(key: int, secret: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    place = libc.shmat(libc.shmget(key, 4096, 0o1666), None, 0)
    ctypes.memmove(place, secret.encode(), len(secret))


def main(name: str, secret: str, abstract: str, key: str, port: str) -> None:
    if "SECRET" not in os.environ:
        # a secret in the environment as the process was started with it, which is what environ shows
        with open("/proc/self/cmdline") as file:
            arguments = file.read().split("\0")[:-1]
        os.execve(sys.executable, arguments, {"SECRET": secret})
    keep_files(name, secret)
    keep_memory(int(key), secret)
    sockets = [listen("\0" + abstract), listen(f"{name}.socket")]
    try:
        with socket.create_connection(("127.0.0.1", int(port))) as one:
            one.sendall(name.encode())
    except OSError as error:
        print(f"cannot reach the client: {error}", flush=True)
        return
    print(READY, flush=True)
    while sockets:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])

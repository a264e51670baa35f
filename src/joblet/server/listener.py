"""Takes connections: how many at most, how long until they have shaken hands, and what when descriptors run out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from grpclib.server import Server

from joblet.log import fields
from joblet.measures import ConnectionMeasures
from joblet.server.certificates import Certificates
from joblet.server.guards import Guarded
from joblet.server.reports import Reports

log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
"""from accept(2) to the end of the TLS handshake"""
_FAREWELL_SECONDS = 5.0
"""for what is still to be sent to a client whose connection has been ended"""
_AT_A_TIME = 64
"""connections taken before others have their turn"""
_PAUSE_SECONDS = 1.0
"""without any descriptor"""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))
    limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def most_connections(wanted: int, descriptors: int, jobs: int) -> int:
    """The bound for connections that leaves descriptors for the jobs and for the logs that are read."""
    return min(wanted, max(descriptors - 2 * jobs - 256, descriptors // 4, 1))


class Listener:
    """The mutable state is the number of connections, those that shake hands, and the descriptor kept in reserve.

    A connection counts from accept(2) until its descriptor is closed. The reserve is there so that a client can be
    turned away when there is none left: else it would wait in the queue, and the queue would wake us without end.
    """

    def __init__(
        self,
        server: Server,
        listening: socket.socket,
        certificates: Certificates,
        most: int,
        on_refused: Callable[[str, str], None],
        measures: ConnectionMeasures,
    ) -> None:
        """`on_refused` is told the peer of a client whose certificate is refused, and why."""
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._listening = listening
        self._certificates = certificates
        self._most = most
        self._measures = measures
        measures.most = most
        self._handshakes: set[asyncio.Task[None]] = set()
        self._reserve = -1
        self._resuming: asyncio.TimerHandle | None = None
        self._reports = Reports()

    def start(self) -> None:
        """Begin to take connections. From here on the server's `close` and `wait_closed` end this too."""
        self._server._server = self  # type: ignore[assignment]  # of asyncio's server grpclib uses those two
        self._server._server_closed_fut = self._loop.create_future()
        self._listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Take no more connections."""
        if self._listening.fileno() < 0:
            return
        self._loop.remove_reader(self._listening)
        self._listening.close()
        if self._resuming is not None:
            self._resuming.cancel()
        if self._reserve >= 0:
            os.close(self._reserve)
        for task in self._handshakes:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no handshake is under way."""
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _resume(self) -> None:
        self._resuming = None
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._reserve >= 0:
            self._loop.add_reader(self._listening, self._accept)
        else:
            self._resuming = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _accept(self) -> None:
        for _ in range(_AT_A_TIME):
            try:
                client, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:  # the client's: accept(2)
                    continue
                self._turn_away(error)
                return
            if self._measures.open >= self._most:
                client.close()
                self._measures.refused["limit"] += 1
                self._reports.tell("too many connections, new ones are closed", most=self._most, peer=_shown(address))
                continue
            client.setblocking(False)
            self._measures.open += 1
            task = self._loop.create_task(self._shake_hands(client, address))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _turn_away(self, error: OSError) -> None:
        """Close one connection that there is no descriptor for, in the place of the reserve."""
        self._measures.refused["descriptors"] += 1
        self._reports.tell("no descriptor for a connection", error=error.strerror, connections=self._measures.open)
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            client, _ = self._listening.accept()
            client.close()
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # somebody was faster
            self._reserve = -1
            self._loop.remove_reader(self._listening)
            self._resuming = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    async def _shake_hands(self, client: socket.socket, address: tuple[object, ...]) -> None:
        protocol = Guarded(self._server, self._on_guard, self._certificates.join, self._on_lost)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._certificates.context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_FAREWELL_SECONDS,
            )
        except ssl.SSLError as error:
            self._measures.failures["tls"] += 1
            if isinstance(error, ssl.SSLCertVerificationError):
                self._on_refused(_shown(address), error.verify_message)
            self._reports.tell(f"TLS handshake failed: {_text(error)}", peer=_shown(address))
        except ConnectionAbortedError:  # what asyncio makes of the time-out
            self._measures.failures["timeout"] += 1
            self._reports.tell(f"no TLS handshake within {_HANDSHAKE_SECONDS:.0f}s", peer=_shown(address))
        except OSError as error:
            self._measures.failures["closed"] += 1
            log.debug("connection ended in its handshake", extra=fields(peer=_shown(address), error=str(error)))
        else:
            self._measures.handshakes += 1
        finally:
            if not protocol.made:
                self._measures.open -= 1

    def _on_guard(self, peer: str, reason: str, details: str) -> None:
        self._measures.ended += 1
        self._reports.tell(f"connection ended: {reason}", peer=peer, **({"details": details} if details else {}))

    def _on_lost(self, connection: Guarded) -> None:
        self._measures.open -= 1
        self._certificates.leave(connection)


def _shown(address: tuple[object, ...]) -> str:
    return f"{address[0]}:{address[1]}"


def _text(error: ssl.SSLError) -> str:
    return (error.reason or "no reason given").lower().replace("_", " ")

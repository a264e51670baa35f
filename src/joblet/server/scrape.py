"""Answers Prometheus over HTTP, in threads of its own: what it asks for keeps no call waiting."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

from joblet.config import host_and_port
from joblet.log import fields

T = TypeVar("T")

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""seconds for the event loop to answer, and for a client to ask or to read"""
_AT_A_TIME = 8
"""requests; more are turned away"""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 1.0
"""without any descriptor"""


class CannotListen(Exception):
    """Nobody can be answered there; the message says why."""


def asked_of(loop: asyncio.AbstractEventLoop, question: Callable[[], T]) -> Callable[[], T]:
    """A function for other threads, that calls `question` on the event loop. It raises TimeoutError."""

    def ask() -> T:
        answer: Future[T] = Future()

        def put() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:  # whoever asks is told
                answer.set_exception(error)

        loop.call_soon_threadsafe(put)
        return answer.result(_PATIENCE)

    return ask


class Exposition:
    """A registry told at `listen`, as the configuration has it, from now until `close`."""

    def __init__(self, listen: str, registry: CollectorRegistry) -> None:
        """Raises CannotListen."""
        self._path = listen.removeprefix("unix:") if listen.startswith("unix:") else ""
        try:
            if self._path:
                _remove_socket(self._path)
                self._server: _Server = _UnixServer(self._path, _Handler)
                os.chmod(self._path, 0o660)
            else:
                host, port = host_and_port(listen)
                kind = _Server6 if ":" in host else _Server
                self._server = kind((host, port), _Handler)
        except OSError as error:
            raise CannotListen(f"metrics.listen: {listen}: {error.strerror or error}") from None
        self._server.set_app(_safe(make_wsgi_app(registry)))
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="metrics")
        self._thread.start()
        log.info("metrics are told", extra=fields(listen=self._told(listen)))

    def close(self) -> None:
        """Answer nobody any more."""
        self._closing = True
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._thread.join()
        self._server.server_close()
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _serve(self) -> None:
        while not self._closing:
            self._server.handle_request()

    def _told(self, listen: str) -> str:
        if self._path:
            return listen
        host, port = self._server.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """As WSGIServer, with a bound of threads. The mutable state is how many more there may be."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(_AT_A_TIME)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        # HTTPServer's would look up the host's name, which can take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("scrape broke off")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("unix", 0)  # WSGIRequestHandler wants an address


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape is no news."""


def _safe(app: Any) -> Any:
    """An application that answers 503 when the server cannot say how it is."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            answered: Iterable[bytes] = app(environ, start_response)
        except Exception as error:
            log.warning("metrics cannot be told", extra=fields(error=repr(error)))
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"the server does not answer\n"]
        return answered

    return answer


def _remove_socket(path: str) -> None:
    """Remove what an earlier server left, and nothing else; make the directory if it is not there."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)

"""An asynchronous client behind calls that block: a thread with an event loop, and methods made of methods."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import CancelledError
from contextlib import aclosing
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from joblet.client._validity import Validity
from joblet.client.client import Client as AsyncClient
from joblet.client.config import ClientConfig
from joblet.client.errors import Cancelled

if TYPE_CHECKING:
    from concurrent.futures import Future

    from joblet.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class Blocking:
    """Runs coroutines of an asynchronous client, and waits for them. The mutable state is its thread, while it is open.

    Everything of the asynchronous client happens in that thread.
    """

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.config = config or ClientConfig.resolve()
        self._client = AsyncClient(self.config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def validities(self) -> Mapping[str, Validity]:
        """How long certificates are valid: of the `client`, and of the `server` while there is a connection to it."""
        return self._client.validities

    def close(self) -> None:
        """End the connection and every call on it."""
        loop, thread, closing = self._loop, self._thread, self._closing
        self._loop = None
        if loop is not None and thread is not None and closing is not None:
            loop.call_soon_threadsafe(closing.set)
            thread.join()

    def _open(self) -> None:
        if self._loop is not None:
            raise RuntimeError("the client is open already")
        started = threading.Event()
        errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve, args=(started, errors), name="joblet", daemon=True)
        self._thread.start()
        started.wait()
        if errors:
            self._thread.join()
            raise errors[0]

    def _serve(self, started: threading.Event, errors: list[BaseException]) -> None:
        async def serve() -> None:
            self._closing = asyncio.Event()
            try:
                await self._client.__aenter__()
            except BaseException as error:
                errors.append(error)
                return
            self._loop = asyncio.get_running_loop()
            started.set()
            await self._closing.wait()
            self._client.close()

        try:
            asyncio.run(serve())  # which cancels what is still under way
        finally:
            started.set()

    def _submit(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            call.close()
            raise RuntimeError("the client is not open: use `with`")
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def _run(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """What a call gives; Ctrl-C cancels it. Raises Cancelled when the client is closed meanwhile."""

        async def awaited() -> T:
            return await call(self._client)

        future = self._submit(awaited())
        try:
            return future.result()
        except CancelledError:
            raise Cancelled("the client was closed during the call") from None
        finally:
            future.cancel()

    def _stream(self, call: Callable[[AsyncClient], AsyncIterator[T]]) -> Generator[T]:
        """What a call gives, one by one. It runs in a task of its own, for its cancellation is its task's."""
        handed: asyncio.Queue[tuple[T] | None] = asyncio.Queue(1)

        async def read() -> None:
            try:
                async with aclosing(cast("AsyncGenerator[T]", call(self._client))) as things:
                    async for thing in things:
                        await handed.put((thing,))
            finally:
                if not _is_cancelled():
                    await handed.put(None)

        reading = self._submit(read())
        try:
            while (got := self._run(lambda _: handed.get())) is not None:
                yield got[0]
            reading.result()
        finally:
            reading.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def blocking(method: Callable[Concatenate[AsyncClient, P], Awaitable[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method of the asynchronous client as one that blocks."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(lambda client: method(client, *args, **kwargs))

    return call


def making(
    method: Callable[Concatenate[AsyncClient, P], Awaitable[T]], make: Callable[[Client, T], U]
) -> Callable[Concatenate[Client, P], U]:
    """The same, of one that gives a handle, for which another is made."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> U:
        return make(self, self._run(lambda client: method(client, *args, **kwargs)))

    return call


def streaming(
    method: Callable[Concatenate[AsyncClient, P], AsyncIterator[T]],
) -> Callable[Concatenate[Client, P], Generator[T]]:
    """A method that gives an asynchronous stream as one that gives a generator."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        return self._stream(lambda client: method(client, *args, **kwargs))

    return call

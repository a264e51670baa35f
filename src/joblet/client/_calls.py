"""What the calls of a client have in common: one connection, and errors that say what happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from grpclib.exceptions import GRPCError, StreamTerminatedError

from joblet.client._channel import JobletChannel
from joblet.client._patience import Patience
from joblet.client._tls import read_pem
from joblet.client._validity import Validity, of_der, of_pem
from joblet.client.config import ClientConfig
from joblet.client.errors import DeadlineExceeded, InvalidArgument, JobletError, SettingsError, from_status
from joblet.proto import joblet as pb

T = TypeVar("T")


class Calls:
    """One connection to one server, to be used in `async with`."""

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.config = config or ClientConfig.resolve()
        self._channel: JobletChannel | None = None

    @classmethod
    def from_env(
        cls,
        *,
        server: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        config: str | Path | None = None,
        node: str | None = None,
    ) -> Self:
        """A client with the settings that `rnx` would use; arguments win over the environment and the file.

        Raises SettingsError.
        """
        return cls(ClientConfig.resolve(server=server, cert=cert, key=key, ca=ca, config=config, node=node))

    async def __aenter__(self) -> Self:
        """Read the certificates. The connection is made by the first call.

        Raises SettingsError when a certificate or the key cannot be used.
        """
        self._channel = JobletChannel(self.config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def validities(self) -> Mapping[str, Validity]:
        """How long certificates are valid: of the `client`, and of the `server` while there is a connection to it."""
        own = None
        with suppress(SettingsError):
            own = of_pem(read_pem(self.config.cert, "client certificate"))
        server = of_der(self._channel.server_certificate) if self._channel is not None else None
        return {whose: found for whose, found in (("client", own), ("server", server)) if found is not None}

    def close(self) -> None:
        """End the connection and every call on it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def _open_channel(self) -> JobletChannel:
        if self._channel is None:
            raise RuntimeError("the client is not open: use `async with`")
        return self._channel

    @property
    def _stub(self) -> pb.JobletServiceStub:
        return pb.JobletServiceStub(self._open_channel)

    @property
    def _jobs_stub(self) -> pb.JobServiceStub:
        return pb.JobServiceStub(self._open_channel)

    @property
    def _files_stub(self) -> pb.FileServiceStub:
        return pb.FileServiceStub(self._open_channel)

    async def _wait(self, patience: Patience, error: JobletError) -> None:
        if self._channel is None:  # closed by its owner, during the call
            raise error
        await patience.wait(error)

    async def _repeat(self, patience: Patience, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a call that is made again as long as `patience` lasts."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                return await self._call(call())
            except JobletError as error:
                if loop.time() - began > self.config.connect_timeout:  # and so it had reached the server
                    patience.renew()
                await self._wait(patience, error)

    async def _resumed(self, stream: Callable[[], AsyncGenerator[T]], *, reconnect: bool) -> AsyncGenerator[T]:
        """What a stream gives; with `reconnect` it is begun anew as long as the patience lasts."""
        patience = Patience(self.config.patience if reconnect else 0)
        while True:
            try:
                async with aclosing(stream()) as items:
                    async for item in items:
                        patience.renew()
                        yield item
            except JobletError as error:
                await self._wait(patience, error)
            else:
                return

    async def _call(self, call: Awaitable[T]) -> T:
        with self._errors():
            return await call

    @contextmanager
    def _errors(self) -> Iterator[None]:
        channel = self._channel
        try:
            yield
        except GRPCError as error:
            raise from_status(error.status, error.message) from error
        except TimeoutError as error:
            settle_cancellation(error)
            raise DeadlineExceeded(f"no answer from {self.config.server} within {self.config.timeout:g} s") from error
        except StreamTerminatedError as error:
            settle_cancellation(error)
            if channel is None:
                raise
            raise channel.explain(error) from error


def settle_cancellation(error: Exception) -> None:
    """Take back the cancellation by which grpclib interrupts a call that has ended; it does not do so itself.

    Until then the task counts as being cancelled, and the next Ctrl-C as the second. Raises CancelledError when
    somebody else has cancelled the task too.
    """
    task = asyncio.current_task()
    if isinstance(error.__context__, asyncio.CancelledError) and task is not None and task.uncancel():
        raise asyncio.CancelledError from error


def check_text(field: str, *texts: str, secret: bool = False) -> None:
    """Raise InvalidArgument for text that has no UTF-8 form: a lone surrogate, as of a file name that is not UTF-8."""
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidArgument(f"invalid {field}: {'***' if secret else repr(text)} is not UTF-8 text")

"""Other commands in running jobs, for code that does not await."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from joblet.client._exec_calls import ExecChunk
from joblet.client._exec_calls import ExecSession as AsyncExecSession

if TYPE_CHECKING:
    from joblet.client._blocking import Blocking


class ExecSession:
    """A command in a running job, to be used in `with`; see joblet.client.ExecSession.

    Iterate over it for what it writes. Another thread may write meanwhile.
    """

    def __init__(self, client: Blocking, session: AsyncExecSession) -> None:
        self._client = client
        self._session = session

    def __enter__(self) -> Self:
        self._client._run(lambda _: self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client._run(lambda _: self._session.__aexit__(None, None, None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ExecChunk:
        """The next piece of output; the end of iteration is its end."""
        chunk = self._client._run(lambda _: anext(self._session, None))
        if chunk is None:
            raise StopIteration
        return chunk

    @property
    def reason(self) -> str:
        """Why it has ended so, once it has."""
        return self._session.reason

    def exit_code(self) -> int:
        """Its exit code, once it has ended; output that has not been read by then is lost."""
        return self._client._run(lambda _: self._session.exit_code())

    def write(self, data: bytes) -> None:
        """Give it input, if it was asked for with `stdin`."""
        self._client._run(lambda _: self._session.write(data))

    def end(self) -> None:
        """Nothing more comes: its next read meets the end of its input."""
        self._client._run(lambda _: self._session.end())

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        self._client._run(lambda _: self._session.resize(rows, columns))

"""How a command gets its connection: the global flags, and the client that they describe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet import command_line
from rnx import expiry
from rnx.light import spare_pydantic
from rnx.plain import PlainCommand

if TYPE_CHECKING:
    from joblet.client import Client

Server = Annotated[
    str | None,
    typer.Option("--server", metavar="HOST:PORT", help="Server address (default localhost:50051, or $JOBLET_SERVER)."),
]
Cert = Annotated[
    str | None,
    typer.Option(
        "--cert", metavar="FILE", help="Client certificate (default certs/client-cert.pem, or $JOBLET_CERT_PATH)."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="FILE", help="Client private key (default certs/client-key.pem, or $JOBLET_KEY_PATH)."
    ),
]
Ca = Annotated[
    str | None,
    typer.Option("--ca", metavar="FILE", help="CA certificate (default certs/ca-cert.pem, or $JOBLET_CA_PATH)."),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file (default rnx-config.yml in ., ./config, ~/.rnx, /etc/joblet)."
    ),
]
Node = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="Node of the settings file (default `default`).")
]

OWN_FAILURE = 125
"""the exit status for a failure of joblet's own, where the others are those of a job's command"""

FLAGS = ("server", "cert", "key", "ca", "config", "node")
"""the names of the global flags"""


class ServerCommand(PlainCommand):
    """A command that takes the global flags after its own name too; there they win."""

    def get_params(self, ctx: Any) -> Any:
        """Its own parameters, then the program's global flags."""
        return [*super().get_params(ctx), *(flag for flag in ctx.find_root().command.params if flag.name in FLAGS)]

    def invoke(self, ctx: Any) -> Any:
        """Hand the flags to the program's context and the rest to the command."""
        for name in FLAGS:
            value = ctx.params.pop(name, None)
            if value is not None:
                ctx.find_root().params[name] = value
        spare_pydantic()
        return super().invoke(ctx)


def with_client(
    ctx: typer.Context,
    call: Callable[[Client], Awaitable[None]],
    *,
    patience: float = 60.0,
    failure: int = command_line.FAILURE,
) -> None:
    """Run `call` with an open client, which has this `patience` (ClientConfig).

    The sentence of any JobletError or Failure is printed, and the exit status is `failure` then. Exits quietly on
    Ctrl-C. Certificates that end soon are told of, last.
    """
    import asyncio
    import dataclasses
    from datetime import UTC, datetime

    from joblet.client import Client, ClientConfig, JobletError, Validity

    validities: dict[str, Validity] = {}
    cert = ""
    flags = ctx.find_root().params

    async def session() -> None:
        nonlocal cert
        config = ClientConfig.resolve(**{name: flags[name] for name in FLAGS})
        cert = config.cert
        async with Client(dataclasses.replace(config, patience=patience)) as client:
            try:
                await call(client)
            finally:
                validities.update(client.validities)

    try:
        asyncio.run(session())
    except (JobletError, command_line.Failure) as error:
        command_line.complain(str(error))
        raise SystemExit(failure) from None
    except KeyboardInterrupt:
        raise SystemExit(command_line.INTERRUPTED) from None
    finally:
        for sentence in expiry.warnings(validities, cert, datetime.now(UTC)):
            command_line.warn(sentence)

"""`rnx nodes`: the servers of the settings file, which one is chosen and why, and whether they answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joblet.command_line import FAILURE, Failure, one_line, write
from rnx.columns import cells, padded
from rnx.session import ServerCommand

if TYPE_CHECKING:
    from joblet.client import ClientConfig
    from joblet.client.config import NodeFile, Setting

_GIVEN = "(as given)"
"""stands for a name where flags or the environment have a say, or no file has one"""
_PATIENCE = 5.0
"""seconds that a node has to connect, and then to answer"""
_LABELS = {"server": "Server", "cert": "Cert", "key": "Key", "ca": "CA"}


@dataclass
class Row:
    """A node. The mutable state is what it has answered."""

    name: str
    address: str
    chosen: bool
    config: ClientConfig | None
    error: str = ""
    """why it cannot be used"""
    took: float | None = None
    """seconds until it has answered"""

    @property
    def state(self) -> str:
        """`ok (12 ms)`, or what is wrong."""
        return self.error if self.took is None else f"ok ({self.took * 1000:.0f} ms)"


def nodes(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Ask each one. Exit status 1 if one does not answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """List the nodes of rnx-config.yml, and say which one is chosen and why. Needs no server."""
    from joblet.client import SettingsError
    from joblet.client.config import DEFAULT_NODE, NodeFile, settings

    flags = ctx.find_root().params
    config, node = flags["config"], flags["node"]
    try:
        file = NodeFile.find(config)
        found = settings({name: flags[name] for name in _LABELS}, config=config, node=node)
    except SettingsError as error:
        raise Failure(str(error)) from None
    rows = _rows(file, node or DEFAULT_NODE, found)
    if check:
        asyncio.run(_ask_all(rows))
    if as_json:
        write(json.dumps(_object(file, rows, found, check), indent=2) + "\n")
    else:
        why = f"--node={node}" if node else "no --node" if file else "no file"
        wins = ", and flags or variables win" if file and rows[-1].name == _GIVEN else ""
        write(_text(file, rows, found, why + wins))
    if check and any(row.error for row in rows):
        raise typer.Exit(FAILURE)


def _rows(file: NodeFile | None, chosen: str, found: Mapping[str, Setting]) -> list[Row]:
    from joblet.client import ClientConfig, SettingsError

    given = file is None or any(setting.source.startswith(("-", "$")) for setting in found.values())
    rows = []
    for name in map(str, file.nodes if file else ()):
        row = Row(name, "", name == chosen and not given, None)
        try:
            row.config = ClientConfig.resolve(config=file.path if file else None, node=name, environ={})
            row.address = row.config.server
        except SettingsError as error:
            row.error = str(error)
        rows.append(row)
    if given:
        row = Row(_GIVEN, found["server"].value, True, None)
        try:
            server, cert, key, ca = (found[name].value for name in _LABELS)
            row.config = ClientConfig(server, cert, key, ca)
        except SettingsError as error:
            row.error = str(error)
        rows.append(row)
    return rows


async def _ask_all(rows: list[Row]) -> None:
    await asyncio.gather(*(_ask(row) for row in rows if row.config is not None))


async def _ask(row: Row) -> None:
    from joblet.client import Client, JobletError

    assert row.config is not None
    config = dataclasses.replace(row.config, connect_timeout=_PATIENCE, timeout=2 * _PATIENCE, patience=0)
    began = time.monotonic()
    try:
        async with Client(config) as client:
            await client.list(limit=1)
    except JobletError as error:
        row.error = str(error)
    else:
        row.took = time.monotonic() - began


def _text(file: NodeFile | None, rows: list[Row], found: Mapping[str, Setting], why: str) -> str:
    from joblet.client.config import FILE_NAME, SEARCH_PATH

    where = str(file.path) if file else f"none ({FILE_NAME} is in none of {', '.join(SEARCH_PATH)})"
    text = f"Settings file: {one_line(where)}\n\n"
    table = [("", "NODE", "ADDRESS", "")]
    table += [
        ("*" if row.chosen else "", one_line(row.name), one_line(row.address), one_line(row.state)) for row in rows
    ]
    widths = [max(len(cells(line[column])) for line in table) for column in range(3)]
    for line in table:
        columns = (padded(cell, width) for cell, width in zip(line, widths, strict=False))
        text += f"{' '.join(columns)} {line[3]}".rstrip() + "\n"
    name = next((row.name for row in rows if row.chosen), "none")
    text += f"\nChosen: {one_line(name)} ({one_line(why)})\n"
    return text + "".join(
        f"{label}: {one_line(_shown(found[setting].value))} ({one_line(found[setting].source)})\n"
        for setting, label in _LABELS.items()
    )


def _object(file: NodeFile | None, rows: list[Row], found: Mapping[str, Setting], check: bool) -> dict[str, Any]:
    def node(row: Row) -> dict[str, Any]:
        known = {"name": row.name, "address": row.address, "chosen": row.chosen, "error": row.error or None}
        return known | ({"milliseconds": row.took and round(row.took * 1000, 1)} if check else {})

    values = {name: {"value": _shown(setting.value), "source": setting.source} for name, setting in found.items()}
    return {"file": str(file.path) if file else None, "nodes": [node(row) for row in rows], "settings": values}


def _shown(value: str) -> str:
    """A setting without the text of keys."""
    from joblet.client.config import is_pem

    return "(PEM text)" if is_pem(value) else value


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=ServerCommand)(nodes)

"""Lists in pages: the newest jobs first, the oldest of them at the top, and a way to the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import grpc
import pytest
from harness import Server, Stock


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory, certificates, stock) -> Iterator[Server]:
    """A server with ten jobs that have ended."""
    server = Server(tmp_path_factory.mktemp("ten"), certificates).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for number in range(1, 11):
            client.finish("echo", str(number))
    yield server
    server.close()


def ids(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "listed", "note"),
    [
        ([], range(1, 11), ""),
        (["--limit=10"], range(1, 11), ""),
        (["--limit=99"], range(1, 11), ""),
        (
            ["--limit=3"],
            range(8, 11),
            "3 newest jobs listed; for older ones: rnx list --before=8; for all: rnx list --all\n",
        ),
        (["--before=4"], range(1, 4), ""),
        (["--before=1"], [], ""),
        (
            ["--before=5", "--limit=2"],
            [3, 4],
            "2 newest jobs listed; for older ones: rnx list --before=3; for all: rnx list --all\n",
        ),
        (["--all"], range(10, 0, -1), ""),
        (["--all", "--before=3"], [2, 1], ""),
    ],
)
def test_pages(ten: Server, arguments: list[str], listed: range, note: str) -> None:
    result = ten.rnx("list", *arguments)
    assert (result.returncode, ids(result.stdout), result.stderr) == (0, list(listed), note)
    as_json = ten.rnx("list", "--json", *arguments)
    assert (as_json.returncode, as_json.stderr) == (0, note)
    assert [int(job["id"]) for job in json.loads(as_json.stdout)] == list(listed)


def test_bad_pages_are_refused(ten: Server, stock) -> None:
    result = ten.rnx("list", "--before=x")
    assert (result.returncode, result.stderr) == (1, "Error: job not found: x\n")
    with ten.channel() as channel:
        client = Stock(channel, *stock)
        with pytest.raises(grpc.RpcError) as caught:
            client.stub.ListJobs(client.pb.EmptyRequest(pageSize=-1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_list_never_exceeds_a_stock_clients_message(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    big = "x" * 100_000
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for _ in range(12):
            client.finish("true", big, big, big, big)
    with grpc.secure_channel(f"localhost:{server.port}", server.credentials()) as channel:  # no option of its own
        client = Stock(channel, *stock)
        page = client.stub.ListJobs(client.pb.EmptyRequest())
    assert page.more
    assert page.ByteSize() <= 4 << 20
    assert [int(job.id) for job in page.jobs] == list(range(13 - len(page.jobs), 13))
    assert len(page.jobs) >= 9

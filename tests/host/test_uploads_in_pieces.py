"""Files that are too large for a message: sent in pieces, whatever happens to connection and server meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, memory_kb, poll_until

from joblet.client import Client, ClientConfig, InvalidArgument, sync

KEY = "0123456789abcdef"


def settings(server: Server, port: int = 0) -> ClientConfig:
    names = ("admin-cert", "admin-key", "ca-cert")
    return ClientConfig(
        f"localhost:{port or server.port}", *(str(server.certificates / f"{name}.pem") for name in names)
    )


@pytest.fixture
def stub(server: Server, stock: tuple[ModuleType, ModuleType]) -> Iterator[Any]:
    with server.channel() as channel:
        yield stock[1].FileServiceStub(channel)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of 6 MB that is nowhere like itself."""
    path = tmp_path / "big.bin"
    path.write_bytes(random.Random(7).randbytes(6 << 20))
    path.chmod(0o640)
    return path


def told(path: Path) -> bytes:
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n640\n".encode()


CHECK = ("bash", "-c", "sha256sum big.bin; stat -c %a big.bin")


def kept(server: Server) -> list[Path]:
    """What the server has of uploads."""
    return [path for name in ("uploads", "incoming") for path in (server.state / name).glob("*")]


def test_three_hundred_megabytes_at_flat_memory(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server().start()
    path = tmp_path / "zeros"
    path.touch()
    os.truncate(path, 300 << 20)
    progress: list[tuple[int, int]] = []
    with sync.Client(settings(server)) as client:
        client.run("true").wait()
        at_start, own = memory_kb(server.pid), memory_kb(os.getpid())
        for pid in (server.pid, os.getpid()):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here (proc_pid_clear_refs(5))
        job = client.run("stat", "-c", "%s", "zeros", uploads=[path], on_progress=lambda *at: progress.append(at))
        assert b"".join(job.logs()) == b"314572800\n"
        job.wait()
        peaks = memory_kb(server.pid, "VmHWM") - at_start, memory_kb(os.getpid(), "VmHWM") - own
    assert max(peaks) < 16 << 10, f"KiB more of server and client: {peaks}"
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == ((0, 300 << 20), (300 << 20, 300 << 20))
    poll_until(lambda: not kept(server))


async def test_an_upload_survives_a_server_that_is_killed(make_server: Callable[..., Server], big: Path) -> None:
    server = await asyncio.to_thread(make_server().start)
    source = random.Random(3)
    places = sorted(source.randrange(6 << 20) for _ in range(2))
    reached, tries = 0, 1

    def restart() -> None:
        server.kill()
        server.start()

    async with Client(settings(server)) as client:
        gone = asyncio.Event()
        restarts: list[asyncio.Task[None]] = []

        def on_progress(done: int, total: int) -> None:
            nonlocal reached, tries
            tries += done < reached
            reached = done
            if places and done > places[0]:
                places.pop(0)
                restarts.append(asyncio.create_task(asyncio.to_thread(restart)))
            if not places:
                gone.set()

        job = await client.run(*CHECK, uploads=[big], on_progress=on_progress, retry=True)
        await asyncio.gather(*restarts)
        assert b"".join([chunk async for chunk in job.logs()]) == told(big)
        await job.wait()
    assert gone.is_set()
    assert not await asyncio.to_thread(lambda: list((server.state / "incoming").iterdir()))


@asynccontextmanager
async def cutting(port: int, most: list[int]) -> AsyncIterator[int]:
    """A way to the server that breaks off after so many bytes, connection by connection; its port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: int | None) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                if room is not None and (room := room - len(data)) < 0:
                    break
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        room = most.pop(0) if most else None
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer, room), pump(inner_reader, writer, None))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def test_an_upload_survives_connections_that_break(server: Server, big: Path) -> None:
    source = random.Random(5)
    cuts = [source.randrange(1 << 20) for _ in range(4)]  # less than the file together
    seen: list[int] = []
    async with cutting(server.port, cuts) as port, Client(settings(server, port)) as client:
        job = await client.run(*CHECK, uploads=[big], on_progress=lambda done, total: seen.append(done))
    async with Client(settings(server)) as client:
        assert b"".join([chunk async for chunk in client.logs(job.id)]) == told(big)
    assert not cuts
    again = [after for before, after in pairwise(seen) if after < before]
    assert again, "it has broken off"


async def test_the_same_command_goes_on_where_another_process_broke_off(server: Server, big: Path) -> None:
    half = asyncio.Event()
    async with Client(settings(server)) as client:
        first = asyncio.create_task(
            client.run(*CHECK, uploads=[big], on_progress=lambda done, total: half.set() if done > 3 << 20 else None)
        )
        await half.wait()
        first.cancel()
        await asyncio.wait({first})
    seen: list[int] = []
    async with Client(settings(server)) as client:
        job = await client.run(*CHECK, uploads=[big], on_progress=lambda done, total: seen.append(done))
        assert b"".join([chunk async for chunk in job.logs()]) == told(big)
    assert seen[0] > 2 << 20


async def test_two_who_send_the_same_files_at_once(server: Server, big: Path) -> None:
    async with Client(settings(server)) as one, Client(settings(server)) as other:
        jobs = await asyncio.gather(*(client.run(*CHECK, uploads=[big]) for client in (one, other, one)))
        assert len({job.id for job in jobs}) == 3
        for job in jobs:
            assert b"".join([chunk async for chunk in job.logs()]) == told(big)


async def test_a_repeated_order_sends_nothing_again(server: Server, big: Path) -> None:
    seen: list[int] = []
    async with Client(settings(server)) as client:
        job = await client.run(*CHECK, uploads=[big], key="pieces-1")
        again = await client.run(*CHECK, uploads=[big], key="pieces-1", on_progress=lambda *at: seen.append(at[0]))
    assert (again.id, seen) == (job.id, [])


async def test_the_files_of_a_workflow(server: Server, big: Path, tmp_path: Path) -> None:
    text = "jobs: {a: {command: sha256sum, args: [big.bin], uploads: {files: [big.bin, sub]}}, b: {command: ls}}\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/small").write_text("small")
    async with Client(settings(server)) as client:
        workflow = await client.run_workflow(tmp_path / "w.yaml", text=text, key="pieces-2")
        assert (await workflow.wait()).workflow.status == "COMPLETED"
        (log, listing) = [await client.tail(job.job_id) for job in (await workflow.status()).jobs]
        assert (log, listing) == (told(big)[:-4], b"")
        again = await client.run_workflow(tmp_path / "w.yaml", text=text, key="pieces-2")
        assert again.id == workflow.id


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def piece(pb: ModuleType, index: int, path: str, content: bytes = b"", **more: Any) -> Any:
    return pb.UploadPiece(key=KEY, index=index, path=path, content=content, **{"size": len(content), **more})


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"index": 1, "path": "../b", "content": b"b"}, "'../b' is not a plain relative path"),
        ({"index": 3, "path": "b"}, "index 3 (the next one is 1)"),
        ({"index": 1, "path": "b", "content": b"b", "size": 9, "offset": 4}, "offset 4 (the next byte is 0)"),
        ({"index": 1, "path": "b", "content": b"bcd", "size": 2}, "'b' is larger than its size, 2 bytes"),
        ({"index": 1, "path": "b", "size": 2**63}, "joblet.maxUploadSize)"),
        ({"index": 1, "path": "a/b"}, "'a/b' is below 'a', which is a file"),
        ({"index": 1, "path": "d", "isDirectory": True, "content": b"d"}, "'d' is a directory and has content"),
        ({"index": 1, "path": "b", "content": b"b", "size": 2, "last": True}, "of 'b' something is missing"),
    ],
)
def test_hostile_pieces(
    server: Server, stub: Any, stock: tuple[ModuleType, ModuleType], second: dict[str, Any], said: str
) -> None:
    pb = stock[0]
    pieces = [piece(pb, 0, "a", b"a"), piece(pb, **second)]
    start = stub.GetUpload(pb.GetUploadReq(key=KEY)).files
    code, text = refusal(lambda: stub.UploadFiles(iter(pieces[start:])))
    assert (code, said in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text
    state = stub.GetUpload(pb.GetUploadReq(key=KEY))
    assert (state.files, state.bytes - state.offset, state.complete) == (1, 1, False)
    assert not (server.state / "uploads/b").exists()


def test_more_pieces_than_there_may_be(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]
) -> None:
    server = make_server(joblet={"maxUploadSize": 1000}).start()
    pb = stock[0]
    with server.channel() as channel:
        stub = stock[1].FileServiceStub(channel)

        def send(*pieces: Any) -> tuple[grpc.StatusCode, str]:
            return refusal(lambda: stub.UploadFiles(iter(pieces)))

        assert send()[1] == "invalid uploads: no piece has come"
        assert send(pb.UploadPiece(key="short", path="a"))[1].startswith("invalid key: 'short'")
        _, text = send(piece(pb, 0, "a", b"a" * 999), piece(pb, 1, "b", b"bb"))
        assert text == "invalid uploads: 1001 bytes, with 'b' (at most 1000, joblet.maxUploadSize)"
        state = stub.UploadFiles(iter([piece(pb, 1, "b", b"b", last=True)]))
        assert (state.files, state.bytes, state.complete) == (2, 1000, True)
        assert send(piece(pb, 2, "c")) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            f"upload is complete already: {KEY}",
        )
        other = pb.UploadPiece(key="f" * 16, path="c", last=True)
        assert send(other, other)[1] == "invalid uploads: a piece after the last one"


def test_orders_of_uploads_that_cannot_be_used(
    server: Server, stub: Any, stock: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    pb = stock[0]
    with server.channel() as channel:
        jobs, workflows = stock[1].JobletServiceStub(channel), stock[1].JobServiceStub(channel)
        text = "jobs: {a: {command: ls, uploads: {files: [other]}}}"
        for call in (
            lambda: jobs.RunJob(pb.RunJobReq(command="ls", uploadKey="none-of-that-name")),
            lambda: workflows.RunWorkflow(pb.RunWorkflowRequest(yamlContent=text, uploadKey="none-of-that-name")),
        ):
            assert refusal(call) == (grpc.StatusCode.FAILED_PRECONDITION, "upload not found: none-of-that-name")
        begun = pb.UploadPiece(key="begun-and-no-more", path="a", size=4, content=b"a")
        stub.UploadFiles(iter([begun]))
        code, said = refusal(lambda: jobs.RunJob(pb.RunJobReq(command="ls", uploadKey="begun-and-no-more")))
        assert said == "upload is not complete: begun-and-no-more (0 files have come so far)"
        stub.UploadFiles(iter([pb.UploadPiece(key="complete-upload-1", path="a", last=True)]))
        for request in (
            pb.RunJobReq(command="ls;", uploadKey="complete-upload-1"),
            pb.RunJobReq(command="ls", uploadKey="complete-upload-1", uploads=[pb.FileUpload(path="b")]),
        ):
            code, said = refusal(lambda: jobs.RunJob(request))  # noqa: B023
            assert code == grpc.StatusCode.INVALID_ARGUMENT
        order = pb.RunWorkflowRequest(yamlContent=text, uploadKey="complete-upload-1")
        code, said = refusal(lambda: workflows.RunWorkflow(order))
        assert "was not sent along" in said
        assert stub.GetUpload(pb.GetUploadReq(key="complete-upload-1")).complete, "it stays for a better order"
        with server.channel("viewer") as viewing:
            other = stock[1].FileServiceStub(viewing)
            code, said = refusal(lambda: other.UploadFiles(iter([begun])))
            assert said == "role viewer is not allowed to perform operation upload_files"


async def test_a_refusal_in_the_middle_reaches_the_client(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = await asyncio.to_thread(make_server(joblet={"maxUploadSize": 3 << 20}).start)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(2 << 20))
    seen: list[int] = []
    async with Client(settings(server)) as client:
        for _ in range(2):
            with pytest.raises(
                InvalidArgument, match=r"4194304 bytes, with 'b' \(at most 3145728, joblet.maxUploadSize"
            ):
                await client.run(
                    "ls", uploads=[tmp_path / "a", tmp_path / "b"], on_progress=lambda *at: seen.append(at[0])
                )
        assert seen[0] == 0
        assert (await client.list(limit=1)) == []


def test_what_nobody_uses_goes(make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]) -> None:
    server = make_server(joblet={"uploadTimeout": "200ms"}).start()
    pb = stock[0]
    with server.channel() as channel:
        stub = stock[1].FileServiceStub(channel)
        stub.UploadFiles(iter([piece(pb, 0, "a", b"content", last=True)]))
        stub.UploadFiles(iter([pb.UploadPiece(key="another-upload-1", path="a", size=4, content=b"a")]))
        poll_until(lambda: not kept(server))
        assert not stub.GetUpload(pb.GetUploadReq(key=KEY)).files


def test_a_complete_upload_outlives_the_server(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]
) -> None:
    server = make_server().start()
    pb = stock[0]
    with server.channel() as channel:
        stub = stock[1].FileServiceStub(channel)
        stub.UploadFiles(iter([piece(pb, 0, "a", b"content", last=True)]))
        stub.UploadFiles(iter([pb.UploadPiece(key="another-upload-1", path="a", size=4, content=b"a")]))
    server.kill()
    server.start()
    with server.channel() as channel:
        stub, jobs = stock[1].FileServiceStub(channel), stock[1].JobletServiceStub(channel)
        state = stub.GetUpload(pb.GetUploadReq(key="another-upload-1"))
        assert (state.files, state.offset) == (0, 1)
        order = pb.RunJobReq(command="cat", args=["a"], uploadKey=KEY, key="once")
        job = jobs.RunJob(order)
        assert b"".join(c.payload for c in jobs.GetJobLogs(pb.GetJobLogsReq(id=job.id))) == b"content"
        assert jobs.RunJob(order).id == job.id, "the job that took it"
        assert jobs.GetJobStatus(pb.GetJobStatusReq(id=job.id)).hasUploads
        order.key = "twice"
        assert refusal(lambda: jobs.RunJob(order)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            f"upload not found: {KEY}",
        )

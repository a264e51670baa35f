"""Waiting for jobs: the client's `wait`, `rnx wait`, `rnx run --wait` and `--follow`, with real jobs."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from harness import PATIENCE, Server, Stock

from joblet.client import Client, ClientConfig, NotFound


def config(server: Server) -> ClientConfig:
    names = ("admin-cert", "admin-key", "ca-cert")
    files = (str(server.certificates / f"{name}.pem") for name in names)
    return ClientConfig(f"localhost:{server.port}", *files)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(config(server)) as client:
        yield client


@pytest.fixture
def stock_client(server: Server, stock) -> Iterator[Stock]:
    with server.channel() as channel:
        yield Stock(channel, *stock)


async def test_a_job_is_waited_for(client: Client) -> None:
    job = await client.run("bash", "-c", "sleep 0.2; exit 3")
    ended = await job.wait()
    assert (ended.status, ended.exit_code, ended.reason) == ("FAILED", 3, "exit code 3")
    assert ended.receipt is not None
    assert await job.wait() == ended
    assert await client.wait(job.id) == [ended]


async def test_one_call_runs_a_job_to_its_end(client: Client) -> None:
    job = await client.run("bash", "-c", "echo found=1 > $JOBLET_OUTPUT; exit 3", wait_for_end=True)
    assert (job.info.status, job.info.exit_code, dict(job.info.outputs)) == ("FAILED", 3, {"found": "1"})
    assert job.info.receipt is not None
    assert job.info == await job.status() == await job.wait()


async def test_the_end_of_an_attempt_names_the_next(client: Client) -> None:
    job = await client.run("false", retries=1, retry_delay=0.001, wait_for_end=True)
    assert job.info.retried_by
    assert (await job.wait()).retry_of == job.id


async def test_one_call_outlasts_a_restart_of_the_server(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    async with Client(config(server)) as client:
        running = asyncio.create_task(
            client.run("bash", "-c", "until [ -e go ]; do sleep 0.05; done", wait_for_end=True)
        )
        async for event in client.events(reconnect=True):
            if event.status == "RUNNING":
                break
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await client.exec_output(event.job_id, "touch", "go")
        assert (await running).info.status == "COMPLETED"
        assert [job.id async for job in client.list_all()] == [event.job_id]


def test_a_stock_client_waits_for_the_end(stock_client: Stock, server: Server) -> None:
    ended = stock_client.run("false", waitForEnd=True)
    assert (ended.status, ended.exitCode, ended.receipt.HasField("wallUsec")) == ("FAILED", 1, True)
    running = stock_client.started("sleep", "1000")
    waiting = stock_client.stub.GetJobStatus.future(stock_client.pb.GetJobStatusReq(id=running.id, waitForEnd=True))
    stock_client.stop(running.id)
    assert waiting.result(PATIENCE).status == "STOPPED"
    with pytest.raises(grpc.RpcError, match="invalid waitForEnd: a job with a recurring schedule"):
        stock_client.run("true", waitForEnd=True, schedule=stock_client.pb.Schedule(when="@daily"))


async def test_all_or_any_of_several(client: Client) -> None:
    slow = await client.run("sleep", "1000")
    other = await client.run("sleep", "1000")
    any_one = asyncio.create_task(client.wait([slow.id, other.id], any=True))
    both = asyncio.create_task(client.wait([slow.id, other.id, slow.id]))
    await other.stop()
    assert [(job.id, job.status) for job in await any_one] == [(other.id, "STOPPED")]
    assert not both.done()
    assert [job.id for job in await client.wait([slow.id, other.id], any=True)] == [other.id]
    await slow.stop()
    assert [job.id for job in await both] == [slow.id, other.id]
    assert await client.wait([]) == await client.wait([], any=True) == []


async def test_waiting_for_the_unknown(client: Client) -> None:
    job = await client.run("sleep", "1000")
    for any_one in (False, True):
        with pytest.raises(NotFound, match="job not found: 999999"):
            await client.wait([job.id, "999999"], any=any_one)
    await job.stop()


async def test_waiting_outlasts_a_restart_of_the_server(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    async with Client(config(server)) as client:
        jobs = [await client.run("sleep", "1000", wait_for_start=True) for _ in range(2)]
        one = asyncio.create_task(jobs[0].wait())
        some = asyncio.create_task(client.wait([job.id for job in jobs], any=True))
        events = client.events(job=jobs[0].id)
        assert (await anext(events)).job_id == jobs[0].id
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await jobs[0].stop()
        assert (await one).status == "STOPPED"
        assert [job.id for job in await some] == [jobs[0].id]
        await jobs[1].stop()


@pytest.mark.parametrize(
    ("script", "status", "output", "told"),
    [
        ("echo out; echo err >&2", 0, "out\nerr\n", ""),
        ("echo before; exit 3", 3, "before\n", "Job N FAILED: exit code 3\n"),
        ("kill -9 $$", 137, "", "Job N FAILED: killed by signal 9 (SIGKILL)\n"),
    ],
)
def test_follow_gives_the_output_and_the_exit_code(
    server: Server, script: str, status: int, output: str, told: str
) -> None:
    result = server.rnx("run", "--follow", "bash", "-c", script)
    assert (result.returncode, result.stdout) == (status, output)
    assert re.sub(r"Job \d+", "Job N", result.stderr) == f"Job N started\n{told}"


def test_follow_passes_bytes(server: Server) -> None:
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)"
    result = server.rnx("run", "-f", "python3", "-c", script, text=False)
    assert (result.returncode, result.stdout) == (0, bytes(range(256)) * 1000)


def test_wait_adds_a_line_to_what_run_prints(server: Server) -> None:
    result = server.rnx("run", "--wait", "bash", "-c", "exit 7")
    assert (result.returncode, result.stderr) == (7, "")
    job_id = re.match(r"Job started:\nID: (\d+)\n", result.stdout)[1]
    assert result.stdout.endswith(f"Network: host (shared with system)\nJob {job_id} FAILED: exit code 7\n")
    result = server.rnx("run", "--wait", "no-such-command")
    assert result.returncode == 127


def test_rnx_wait(server: Server, stock_client: Stock) -> None:
    good = stock_client.run("true").id
    bad = stock_client.run("bash", "-c", "exit 5").id
    result = server.rnx("wait", good, bad)
    assert (result.returncode, result.stderr) == (5, "")
    assert result.stdout == f"Job {good} COMPLETED: exit code 0\nJob {bad} FAILED: exit code 5\n"
    running = stock_client.started("sleep", "1000").id
    result = server.rnx("wait", "--any", running, good)
    assert (result.returncode, result.stdout) == (0, f"Job {good} COMPLETED: exit code 0\n")
    stock_client.stop(running)
    result = server.rnx("wait", running)
    assert (result.returncode, result.stdout) == (255, f"Job {running} STOPPED: stopped by admin\n")


@pytest.mark.parametrize("arguments", [["wait", "999999"], ["run", "--wait", "a;b"], ["run", "-f", "a;b"]])
def test_failures_of_joblets_own_have_a_status_of_their_own(server: Server, arguments: list[str]) -> None:
    result = server.rnx(*arguments)
    assert (result.returncode, result.stdout) == (125, "")
    assert re.fullmatch(r"Error: .*\n", result.stderr)
    assert server.rnx("run", "a;b").returncode == 1


@pytest.mark.parametrize("flag", ["--wait", "--follow"])
def test_ctrl_c_leaves_the_job_running_and_says_so(server: Server, stock_client: Stock, flag: str) -> None:
    command = server.rnx_command("run", flag, "bash", "-c", "echo on; sleep 1000")
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stdout is not None
    lines = iter(client.stdout)
    for line in lines:
        if line == ("on\n" if flag == "--follow" else "Network: host (shared with system)\n"):
            break
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=PATIENCE)
    job_id = stock_client.list()[-1].id
    assert client.returncode == 130
    assert errors.endswith(f"The job goes on; to see it again: rnx log {job_id}, to stop it: rnx stop {job_id}\n")
    assert stock_client.status(job_id).status in ("INITIALIZING", "RUNNING")
    stock_client.stop(job_id)


def test_a_workflow_can_be_waited_for_without_a_view(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("jobs: {a: {command: 'false'}}\n")
    result = server.rnx("run", "--workflow=w.yaml", "--wait", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    assert re.search(r"\nWorkflow \d+ FAILED \(1 failed\): .*\n$", result.stdout)

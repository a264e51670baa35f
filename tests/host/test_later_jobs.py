"""Jobs that run later and again, and labels: the commands, the client and the server, with real jobs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from harness import Server

from joblet.client import Client, ClientConfig, FailedPrecondition, InvalidArgument, ResourceExhausted, Schedule, sync

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
FLAKY = 'echo "attempt $JOBLET_ATTEMPT"; test "$JOBLET_ATTEMPT" = 3'


def config(server: Server) -> ClientConfig:
    names = ("admin-cert", "admin-key", "ca-cert")
    files = (str(server.certificates / f"{name}.pem") for name in names)
    return ClientConfig(f"localhost:{server.port}", *files)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(config(server)) as client:
        yield client


def run(server: Server, *arguments: str) -> str:
    """The id of a job that rnx has made."""
    done = server.rnx("run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r"^ID: (\d+)$", done.stdout, re.MULTILINE)
    assert found
    return found[1]


def test_a_scheduled_job_is_shown_explained_and_taken_back(server: Server) -> None:
    done = server.rnx("run", "--schedule=1h30m", "--name=later", "echo", "hello")
    assert re.fullmatch(
        r"Job started:\nID: \d+\nCommand: echo hello\nStatus: SCHEDULED\nStartTime:\nMaxCPU: 100\nMaxMemory: 512\n"
        r"Network: host \(shared with system\)\n",
        done.stdout,
    )
    job_id = done.stdout.split()[3]
    line = f"{job_id} SCHEDULED StartTime: Command: echo hello\n"
    assert line in server.rnx("list", "--status=scheduled").stdout
    assert "Status: SCHEDULED\nStarted At:\nEnded At:\n" in server.rnx("status", job_id).stdout
    shown = server.rnx("status", "-v", job_id).stdout
    assert re.search(rf"^Schedule: 1h30m\nScheduledTime: {TIME}$", shown, re.MULTILINE)
    why = server.rnx("why", job_id).stdout
    assert re.match(rf"Job {job_id} SCHEDULED\nIt starts at {TIME}; `rnx stop {job_id}` takes it back\.\n", why)
    assert server.rnx("log", "--follow=false", job_id).stdout.count("\n") == 1
    assert server.rnx("timeout", job_id, "5m").returncode == 0
    refused = server.rnx("delete", job_id)
    assert refused.stderr == f"Error: job has not ended: {job_id} (current status: SCHEDULED)\n"
    assert re.search(
        rf"ID: {job_id}\nStatus: STOPPED\nExitCode: -1\nEndTime: {TIME}\n", server.rnx("stop", job_id).stdout
    )
    assert server.rnx("log", job_id).stdout.count("\n") == 1
    assert server.rnx("delete", job_id).returncode == 0


def test_a_job_that_begins_soon_is_waited_for_and_followed(server: Server) -> None:
    done = server.rnx("run", "--schedule=300ms", "--follow", "sh", "-c", "echo done; exit 4")
    assert (done.returncode, done.stdout) == (4, "done\n")
    assert re.fullmatch(rf"Job \d+ is scheduled for {TIME}\nJob \d+ FAILED: exit code 4\n", done.stderr)


async def test_its_events_and_its_log_tell_of_a_scheduled_job(client: Client) -> None:
    job = await client.run("echo", "hello", schedule="200ms")
    assert (job.info.status, job.info.start_time) == ("SCHEDULED", "")
    assert b"".join([chunk async for chunk in job.logs()]) == b"hello\n"
    assert (await job.wait()).status == "COMPLETED"
    told = [event async for event in client.events(job=job.id, follow=False)]
    assert [event.status for event in told] == ["SCHEDULED", "INITIALIZING", "RUNNING", "COMPLETED"]
    assert [event.time for event in told] == sorted(event.time for event in told)


async def test_recurring_jobs_stay_until_they_are_stopped(client: Client, server: Server) -> None:
    schedule = Schedule("0 3 1 1 *", "Europe/Berlin", overlap="queue", jitter_ms=5000, catch_up="none")
    job = await client.run("true", schedule=schedule, key="yearly", labels={"app": "x"})
    assert job.info.schedule == schedule
    assert re.fullmatch(r"\d{4}-01-01T02:00:00Z", job.info.scheduled_time)
    assert (await client.run("true", schedule=schedule, key="yearly", labels={"app": "x"})).id == job.id
    assert f"Its schedule 0 3 1 1 * (Europe/Berlin) makes a job at {job.info.scheduled_time} next" in (
        server.rnx("why", job.id).stdout
    )
    assert server.rnx("list", f"--schedule={job.id}").stdout == ""
    with pytest.raises(FailedPrecondition):
        await client.delete(job.id)
    assert (await job.stop()).status == "STOPPED"
    assert (await job.wait()).status == "STOPPED"
    await client.delete(job.id)


@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_nobody_waits_for_what_does_not_end_by_itself(server: Server, option: str) -> None:
    done = server.rnx("run", "--schedule=*/5 * * * *", option, "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {option} is not for a recurring schedule, which does not end by itself")


async def test_what_cannot_be_is_refused_with_a_sentence(client: Client) -> None:
    last = [job.id for job in await client.list(limit=1)]
    for asked, why in (
        ({"schedule": "31 2 31 2 *"}, 'invalid schedule: "31 2 31 2 *": bad day-of-month'),
        ({"schedule": "2020-01-01T00:00:00Z"}, 'invalid schedule: "2020-01-01T00:00:00Z" has passed (it is 2'),
        ({"schedule": "soon"}, 'invalid schedule: "soon" is neither a time'),
        ({"schedule": Schedule("1h", "UTC")}, "invalid schedule: timezone is of cron expressions only"),
        ({"schedule": Schedule("@daily", catch_up="all")}, 'invalid schedule: catchUp "all" runs many at a time'),
        ({"schedule": Schedule("@daily", overlap="both")}, "invalid schedule: overlap 'both' is none of skip, queue"),
        ({"schedule": "@daily", "wait_for_start": True}, "invalid waitForStart: a job with a recurring schedule"),
        ({"schedule": "@daily", "stdin": True}, "invalid schedule: '@daily' of a job that takes input"),
        ({"retries": 101}, "invalid retries: 101 (allowed 0 to 100)"),
        ({"retries": 1, "retry_delay": 7200}, "invalid retryDelayMs: 7200000 ms (allowed 0 to 3600000)"),
        ({"labels": {"-a": "b"}}, "invalid labels: '-a' is no name of a label"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await client.run("true", **asked)  # type: ignore[arg-type]
        assert str(refused.value).startswith(why)
    assert [job.id for job in await client.list(limit=1)] == last


async def test_who_waits_for_the_start_of_a_scheduled_job_learns_of_it(client: Client) -> None:
    job = await client.run("sleep", "1000", schedule="100ms", wait_for_start=True)
    assert job.info.status == "RUNNING"
    await job.stop()


def test_retries_are_followed_to_the_last(server: Server) -> None:
    done = server.rnx("run", "--retries=2", "--retry-delay=20ms", "--follow", "sh", "-c", FLAKY)
    assert (done.returncode, done.stdout) == (0, "attempt 1\nattempt 2\nattempt 3\n")
    first, *rest = re.findall(r"[Jj]ob (\d+)", done.stderr)
    assert done.stderr == (
        f"Job {first} started\n"
        f"Job {first} FAILED: exit code 1\nIt was attempt 1 of 3; the next is job {rest[1]}\n"
        f"Job {rest[1]} FAILED: exit code 1\nIt was attempt 2 of 3; the next is job {rest[3]}\n"
    )
    assert f"It was attempt 1 of 3; the next is job {rest[1]}." in server.rnx("why", first).stdout
    assert f"It was attempt 3 of 3; the first was job {first}." in server.rnx("why", rest[3]).stdout
    status = json.loads(server.rnx("status", "--json", rest[1]).stdout)
    assert (status["attempt"], status["retryOf"], status["retriedBy"]) == (2, first, rest[3])
    waited = server.rnx("wait", first)
    assert (waited.returncode, waited.stdout) == (0, f"Job {rest[3]} COMPLETED: exit code 0\n")


def test_retries_that_do_not_help_end_with_the_last(server: Server) -> None:
    done = server.rnx("run", "--retries=1", "--retry-delay=20ms", "--wait", "sh", "-c", "exit $((JOBLET_ATTEMPT + 3))")
    assert done.returncode == 5
    assert re.search(r"Job \d+ FAILED: exit code 5\n$", done.stdout)
    assert re.fullmatch(r"Job \d+ FAILED: exit code 4\nIt was attempt 1 of 2; the next is job \d+\n", done.stderr)


def test_a_chain_of_attempts_ends_with_the_one_that_is_stopped(server: Server) -> None:
    job_id = run(server, "--retries=5", "--retry-delay=1h", "false")
    with sync.Client(config(server)) as client:
        ended = next(client.attempts(job_id))
        assert ended.retried_by
        assert "It is attempt 2 of 6; the first was" in server.rnx("why", ended.retried_by).stdout
        assert client.stop(ended.retried_by).status == "STOPPED"
        (last,) = client.wait(job_id)
        assert (last.id, last.status, last.attempt) == (ended.retried_by, "STOPPED", 2)
        (last,) = client.wait([job_id], any=True)
        assert last.id == ended.retried_by


async def test_any_of_several_has_ended_when_its_last_attempt_has(client: Client) -> None:
    slow = await client.run("sleep", "1000")
    flaky = await client.run("sh", "-c", FLAKY, retries=2, retry_delay=0.05)
    (ended,) = await client.wait([slow.id, flaky.id], any=True)
    assert (ended.retry_of, ended.attempt, ended.status) == (flaky.id, 3, "COMPLETED")
    assert [attempt.attempt async for attempt in flaky.attempts()] == [1, 2, 3]
    await slow.stop()


async def test_labels_are_shown_and_found(client: Client, server: Server) -> None:
    await client.run("true", labels={"team": "web"})
    job = await client.run("true", labels={"team": "data", "example.com/x": "a b"}, retries=1)
    assert server.rnx("list", "--label=team=data", "--format={id}").stdout == f"{job.id}\n"
    shown = server.rnx("status", "-v", job.id).stdout
    assert "Label: example.com/x=a b\nLabel: team=data\nAttempt: 1 of 2\nRetryDelay: 1s\n" in shown
    assert "Label" not in server.rnx("status", job.id).stdout
    again = await client.status(server.rnx("rerun", job.id).stdout.split()[3])
    assert (again.labels, again.retries, again.retry_delay_ms) == (job.info.labels, 1, 1000)


def test_files_stay_for_the_attempts_that_need_them(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server().start()
    file = tmp_path / "data.txt"
    file.write_text("whole\n")
    command = ["sh", "-c", "cat data.txt; exit 1"]
    done = server.rnx("run", f"--upload={file}", "--retries=2", "--retry-delay=20ms", "-f", *command)
    assert (done.returncode, done.stdout) == (1, "whole\n" * 3)
    later = run(server, f"--upload={file}", "--schedule=@yearly", "cat", "data.txt")
    server.kill()
    server.start()
    assert len(list((server.state / "uploads").iterdir())) == 1
    assert server.rnx("stop", later).returncode == 0
    server.stop()  # which waits for what it is about to remove, or leaves it to the next
    server.start()
    assert list((server.state / "uploads").iterdir()) == []


async def test_there_is_a_bound_on_scheduled_jobs(make_server: Callable[..., Server]) -> None:
    server = make_server(joblet={"maxScheduledJobs": 1}).start()
    async with Client(config(server)) as client:
        first = await client.run("true", schedule="1h")
        with pytest.raises(ResourceExhausted, match=r"^1 jobs are scheduled \(at most 1, joblet.maxScheduledJobs\)$"):
            await client.run("true", schedule="@daily")
        await first.stop()
        await client.run("true", schedule="@daily")

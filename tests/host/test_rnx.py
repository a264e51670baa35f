"""Every example of the specification's command line section, against a real server, character for character."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, Server, Stock

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def fresh(make_server: Callable[..., Server]) -> Server:
    """A server whose first job has id 1, as in the specification."""
    return make_server(joblet={"cleanupTimeout": "2s"}).start()


@pytest.fixture
def watched(server: Server, stock) -> Iterator[Stock]:
    with server.channel() as channel:
        yield Stock(channel, *stock)


def wait_for_log(server: Server, job_id: str, name: str = "admin") -> str:
    result = server.rnx("log", job_id, name=name)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_run_status_stop(fresh: Server) -> None:
    result = fresh.rnx("run", "--max-cpu=50", "--max-memory=512", "python3", "-c", "import time; time.sleep(1000)")
    assert (result.returncode, result.stderr) == (0, "")
    expected = (
        "Job started:\n"
        "ID: 1\n"
        r"Command: python3 -c import time; time.sleep\(1000\)" + "\n"
        "Status: INITIALIZING\n"
        f"StartTime: {TIME}\n"
        "MaxCPU: 50\n"
        "MaxMemory: 512\n"
        r"Network: host \(shared with system\)" + "\n"
    )
    assert re.fullmatch(expected, result.stdout), result.stdout
    fresh.wait_for_line(re.compile("job started successfully"))

    result = fresh.rnx("status", "1")
    expected = (
        "Id: 1\n"
        r"Command: python3 -c import time; time.sleep\(1000\)" + "\n"
        "Status: RUNNING\n"
        f"Started At: {TIME}\n"
        "Ended At:\n"
        "MaxCPU: 50\n"
        "MaxMemory: 512\n"
        "MaxIOBPS: 0\n"
        "ExitCode: 0\n"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(expected, result.stdout), result.stdout

    result = fresh.rnx("stop", "1")
    expected = f"Job stopped successfully:\nID: 1\nStatus: STOPPED\nExitCode: -1\nEndTime: {TIME}\n"
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(expected, result.stdout), result.stdout


def test_list(fresh: Server) -> None:
    fresh.rnx("run", "echo", "hello")
    wait_for_log(fresh, "1")
    fresh.rnx("run", "python3", "-c", "input()")  # no input: ends with an error
    wait_for_log(fresh, "2")
    fresh.rnx("run", "invalid-command")
    wait_for_log(fresh, "3")
    fresh.rnx("run", "sleep", "1000")
    fresh.wait_for_line(re.compile("job started successfully.*sleep"))
    result = fresh.rnx("list")
    expected = (
        f"1 COMPLETED StartTime: {TIME} Command: echo hello\n"
        rf"2 FAILED StartTime: {TIME} Command: python3 -c input\(\)" + "\n"
        f"3 FAILED StartTime: {TIME} Command: invalid-command\n"
        f"4 RUNNING StartTime: {TIME} Command: sleep 1000\n"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(expected, result.stdout), result.stdout


@pytest.mark.parametrize("flags", [[], ["-f"], ["--follow"], ["--follow=true"]])
def test_log_follows_to_the_end(server: Server, flags: list[str]) -> None:
    run = server.rnx("run", "bash", "-c", "echo Starting script...; sleep 0.3; echo Script completed successfully")
    job_id = re.search(r"^ID: (\d+)$", run.stdout, re.MULTILINE).group(1)
    result = server.rnx("log", *flags, job_id)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"Logs for job {job_id} (Press Ctrl+C to exit if streaming):\n"
        "Starting script...\n"
        "Script completed successfully\n"
    )


def test_log_of_what_is_there_now(server: Server, watched: Stock) -> None:
    job = watched.started("bash", "-c", "echo one; sleep 1000")
    assert next(watched.logs(job.id)) == b"one\n"
    result = server.rnx("log", "--follow=false", job.id)
    assert result.returncode == 0
    assert result.stdout == f"Logs for job {job.id} (Press Ctrl+C to exit if streaming):\none\n"
    watched.stop(job.id)


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["echo", "hello world"], "hello world\n"),
        (["bash", "-c", "sleep 0.2 && echo done"], "done\n"),
        (["python3", "-c", "import sys; print(sys.argv[1:])", "--max-cpu=1", "-f"], "['--max-cpu=1', '-f']\n"),
        (["printf", "%s|", "--help", "--", "-x"], "--help|--|-x|"),
        (["--", "printf", "%s|", "--", "a"], "--|a|"),
    ],
)
def test_what_follows_the_command_belongs_to_it(server: Server, command: list[str], output: str) -> None:
    run = server.rnx("run", "--max-cpu=80", *command)
    assert run.returncode == 0, run.stderr
    assert "MaxCPU: 80\n" in run.stdout
    job_id = re.search(r"^ID: (\d+)$", run.stdout, re.MULTILINE).group(1)
    header, _, text = wait_for_log(server, job_id).partition("\n")
    assert header.startswith("Logs for job")
    assert text == output


def test_settings_from_the_environment(server: Server) -> None:
    environment = {
        **os.environ,
        "JOBLET_SERVER": f"localhost:{server.port}",
        "JOBLET_CERT_PATH": str(server.certificates / "viewer-cert.pem"),
        "JOBLET_KEY_PATH": str(server.certificates / "viewer-key.pem"),
        "JOBLET_CA_PATH": str(server.certificates / "ca-cert.pem"),
    }
    command = [sys.executable, "-m", "rnx"]
    listed = subprocess.run([*command, "list"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = subprocess.run(
        [*command, "run", "true"], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert refused.returncode != 0
    assert refused.stderr == "Error: role viewer is not allowed to perform operation run_job\n"


def test_default_certificate_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    for source, target in [("ca-cert", "ca-cert"), ("admin-cert", "client-cert"), ("admin-key", "client-key")]:
        (tmp_path / f"certs/{target}.pem").symlink_to(server.certificates / f"{source}.pem")
    command = [sys.executable, "-m", "rnx", f"--server=localhost:{server.port}", "list"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBLET_")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status", "999999"], "job not found: 999999"),
        (["stop", "999999"], "job not found: 999999"),
        (["log", "999999"], "job not found: 999999"),
        (["run", "ls;rm"], "invalid command: command contains dangerous characters"),
    ],
)
def test_errors_are_one_line(server: Server, arguments: list[str], text: str) -> None:
    result = server.rnx(*arguments)
    assert result.returncode == 1
    assert result.stderr == f"Error: {text}\n"


def test_stop_of_an_ended_job(server: Server, watched: Stock) -> None:
    job = watched.run("true")
    watched.output(job.id)
    result = server.rnx("stop", job.id)
    assert result.returncode == 1
    assert result.stderr == f"Error: job is not running: {job.id} (current status: COMPLETED)\n"


def test_a_limit_out_of_bounds(server: Server) -> None:
    result = server.rnx("run", "--max-memory=2000000000", "true")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: job creation failed: maxMemory exceeds system limits")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_in_log_ends_only_the_client(server: Server, watched: Stock) -> None:
    job = watched.started("bash", "-c", "echo on; sleep 1000")
    client = subprocess.Popen(
        server.rnx_command("log", job.id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline().startswith("Logs for job")
    assert client.stdout.readline() == "on\n"
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=PATIENCE)
    assert (client.returncode, errors) == (130, "")
    assert watched.status(job.id).status == "RUNNING"
    watched.stop(job.id)


def test_output_into_head_ends_quietly(server: Server, watched: Stock) -> None:
    job = watched.started("yes")
    client = subprocess.Popen(server.rnx_command("log", job.id), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    head = subprocess.run(["head", "-n", "3"], stdin=client.stdout, capture_output=True, text=True, timeout=PATIENCE)
    assert client.stdout is not None
    client.stdout.close()
    assert head.stdout.splitlines()[1:] == ["y", "y"]
    assert client.stderr is not None
    assert client.stderr.read() == b""
    assert client.wait(PATIENCE) in (0, 141)
    assert watched.status(job.id).status == "RUNNING"
    watched.stop(job.id)


def test_binary_output_passes_unchanged(server: Server, watched: Stock) -> None:
    job = watched.run("python3", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 100)")
    result = server.rnx("log", job.id, text=False)
    assert result.stdout.partition(b"\n")[2] == bytes(range(256)) * 100


@pytest.mark.parametrize(("patience", "tried"), [("0s", ""), ("1s", " (tried again for 1 s)")])
def test_a_lost_server_is_told_in_one_line(
    make_server: Callable[..., Server], stock, patience: str, tried: str
) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "echo on; sleep 1000")
    client = subprocess.Popen(
        server.rnx_command("log", f"--reconnect={patience}", job.id),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    client.stdout.readline()
    assert client.stdout.readline() == "on\n"
    server.kill()
    _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 1
    assert re.fullmatch(rf"Error: .*{re.escape(tried)}\n", errors), errors

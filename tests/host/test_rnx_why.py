"""`rnx why` and `rnx rerun`, with real jobs; and the end of a log that is long."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness import Server, Stock

from joblet.client import Client, ClientConfig, NotFound


def test_what_ended_a_job(server: Server, client: Stock) -> None:
    job, _ = client.finish("python3", "-c", "print('on it', flush=True); data = bytearray(200 << 20)", maxMemory=64)
    result = server.rnx("why", job.id, name="viewer")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(
        f"Job {job.id} FAILED: out of memory\n"
        "It needed more than its 64 MB of memory, and the kernel killed it: see --max-memory.\n"
        "\nCommand: python3 -c "
    )
    assert re.search(r"^Memory: 6\d\.\d of 64 MB \(\d+ %\)$", result.stdout, re.MULTILINE)
    assert result.stdout.endswith(f"\nLast lines of its log (rnx log {job.id}):\n  on it\n")
    told = json.loads(server.rnx("why", job.id, "--json").stdout)
    assert (told["job"]["reason"], told["lastLines"], told["workflowJob"]) == ("out of memory", ["on it"], None)
    assert server.rnx("why", "999999").stderr == "Error: job not found: 999999\n"


def test_what_ended_a_workflow(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "jobs:\n"
        "  good: {command: 'true'}\n"
        "  bad: {command: bash, args: ['-c', 'echo oh; exit 4'], requires: [good]}\n"
        "  last: {command: 'true', requires: [bad]}\n"
    )
    output = server.rnx("run", "--workflow=w.yaml", "--wait", cwd=tmp_path).stdout
    workflow_id = re.search(r"^ID: (\d+)$", output, re.MULTILINE)[1]
    result = server.rnx("why", "--workflow", workflow_id)
    assert (result.returncode, result.stderr) == (0, "")
    job_id = re.search(r"^bad FAILED \(job (\d+)\)", result.stdout, re.MULTILINE)[1]
    assert result.stdout == (
        f"Workflow {workflow_id} FAILED: bad is FAILED\n"
        "Progress: 1/3 jobs completed\n"
        "\n"
        f"bad FAILED (job {job_id}): exit code 4\n"
        f"  Last lines of its log (rnx log {job_id}):\n"
        "    oh\n"
        "\n"
        "last CANCELED: requires bad=COMPLETED, but bad is FAILED\n"
    )
    assert json.loads(server.rnx("why", "--workflow", workflow_id, "--json").stdout)["lastLines"] == {job_id: ["oh"]}
    of_job = server.rnx("why", job_id).stdout
    assert f"\nWorkflow: {workflow_id} (w.yaml), FAILED\nJob: bad\nRequires: good=COMPLETED\n" in of_job
    refused = server.rnx("rerun", job_id)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith(f"files it needs: rnx workflow retry {workflow_id}\n")


def test_the_same_order_again(server: Server, client: Stock) -> None:
    run = server.rnx(
        *(
            "run",
            "--max-memory=77",
            "--timeout=5m",
            "--name=n",
            "-e",
            "A=b",
            "--workdir=/tmp",
            "--job-key=again",
            "--wait",
        ),
        *("bash", "-c", "echo $A in $PWD; exit 3"),
    )
    old_id = re.search(r"^ID: (\d+)$", run.stdout, re.MULTILINE)[1]
    result = server.rnx("rerun", "--follow", old_id)
    assert (result.returncode, result.stdout) == (3, "b in /tmp\n")
    new_id = re.match(r"Job (\d+) started\n", result.stderr)[1]
    assert new_id != old_id
    old, new = client.status(old_id), client.status(new_id)
    for field in (
        "command",
        "args",
        "maxCPU",
        "maxMemory",
        "maxOpenFiles",
        "timeoutMs",
        "name",
        "environment",
        "workdir",
    ):
        assert getattr(new, field) == getattr(old, field)
    assert new.key == ""


def test_secrets_have_to_be_given_again(server: Server) -> None:
    run = server.rnx("run", "--wait", "-s", "T=hidden-value", "bash", "-c", "echo ${#T}")
    job_id = re.search(r"^ID: (\d+)$", run.stdout, re.MULTILINE)[1]
    result = server.rnx("rerun", job_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("which the server does not tell; give them again: --secret-env=T\n")
    assert server.rnx("rerun", job_id, "-s", "T=four", "-f").stdout == "4\n"
    assert "hidden-value" not in server.rnx("why", job_id, "--json").stdout


def test_jobs_as_json_where_they_are_run_and_waited_for(server: Server) -> None:
    begun = json.loads(server.rnx("run", "--json", "--name=json", "sleep", "0.1").stdout)
    assert (begun["name"], begun["command"], begun["args"]) == ("json", "sleep", ["0.1"])
    failed = server.rnx("run", "--json", "--wait", "bash", "-c", "exit 3")
    ended = json.loads(failed.stdout)
    assert (failed.returncode, ended["status"], ended["exitCode"]) == (3, "FAILED", 3)
    waited = json.loads(server.rnx("wait", "--json", begun["id"], ended["id"]).stdout)
    assert [job["status"] for job in waited] == ["COMPLETED", "FAILED"]
    assert waited[1] == json.loads(server.rnx("status", "--json", ended["id"]).stdout)
    refused = server.rnx("run", "--json", "--follow", "true")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_files_have_to_be_given_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from a file\n")
    run = server.rnx("run", "--wait", "--upload=f", "cat", "f", cwd=tmp_path)
    job_id = re.search(r"^ID: (\d+)$", run.stdout, re.MULTILINE)[1]
    result = server.rnx("rerun", job_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: job {job_id} was given files, which are not kept; give them again: --upload, --upload-dir\n"
    )
    assert server.rnx("rerun", "-f", "--upload=f", job_id, cwd=tmp_path).stdout == "from a file\n"


@pytest.mark.parametrize("size", [0, 1, 5000, 32768, 1_000_003])
async def test_the_end_of_a_log_however_long(server: Server, size: int) -> None:
    names = ("admin-cert", "admin-key", "ca-cert")
    files = (str(server.certificates / f"{name}.pem") for name in names)
    async with Client(ClientConfig(f"localhost:{server.port}", *files)) as client:
        script = f"import sys; sys.stdout.write(''.join(map(str, range({size})))[:{size}])"
        job = await client.run("python3", "-c", script)
        await job.wait()
        whole = "".join(map(str, range(size)))[:size].encode()
        assert await client.tail(job.id) == whole[-16384:]
        assert await client.tail(job.id, 10) == whole[-10:]
        with pytest.raises(NotFound):
            await client.tail("999999")

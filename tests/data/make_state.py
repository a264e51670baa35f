"""Makes a frozen state directory, and what the server that made it said of its jobs.

The server is the one that Python finds, so with another commit checked out and built in OLD:

    PYTHONPATH=OLD/src:tests python tests/data/make_state.py tests/data/state-v1

It ends as a machine does that loses its power: one job has ended unseen, others run or wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from harness import ROOT, Server, Stock, compile_stock_client, make_certificates, wait_for_end

FIELDS = ("id", "command", "maxCPU", "maxMemory", "maxIOBPS", "status", "startTime", "endTime", "exitCode", "reason")


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        messages = compile_stock_client(Path(folder, "stock"), ROOT / "protos/joblet.proto")
        certificates = make_certificates(Path(folder, "certs"))
        server = Server(Path(folder), certificates, joblet={"maxConcurrentJobs": 3, "cleanupTimeout": "2s"}).start()
        with server.channel() as channel:
            said = run_jobs(Stock(channel, *messages))
        monitors = server.monitors()
        server.kill()
        unseen = server.state / "jobs" / said["unseen"]["id"]
        for monitor in monitors:
            if f"pid={monitor}\n" not in (unseen / "monitor").read_text():
                os.kill(monitor, signal.SIGKILL)
            wait_for_end(monitor)
        assert (unseen / "exit").exists()
        target.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
        with tarfile.open(target.with_suffix(".tar.gz"), "w:gz") as archive:
            archive.add(server.state, "state", filter=keep)
        server.close()


def run_jobs(client: Stock) -> dict[str, dict[str, Any]]:
    """Jobs of every kind by name, and what the server says of them."""
    finished = {
        "completed": client.finish("echo", "hello", maxMemory=64),
        "failed": client.finish("bash", "-c", "echo oops; exit 3"),
        "killed": client.finish("bash", "-c", "kill -9 $$"),
        "absent": client.finish("no-such-program"),
    }
    job = client.started("bash", "-c", "echo begun; sleep 1000")
    client.stop(job.id)
    finished["stopped"] = client.status(job.id), client.output(job.id)
    said = {name: described(status, output) for name, (status, output) in finished.items()}
    # All slots are taken by these, so that the last one waits.
    said["unseen"] = described(client.started("bash", "-c", "read -t 3 < /dev/zero; echo end; exit 4"), b"end\n")
    said["running"] = described(client.started("bash", "-c", "echo started; sleep 1000"), b"started\n")
    said["running too"] = described(client.started("sleep", "1000"), b"")
    said["waiting"] = described(client.run("echo", "it was my turn"), b"it was my turn\n")
    next(client.logs(said["running"]["id"]))  # its line is in the log
    return said


def described(job: Any, output: bytes) -> dict[str, Any]:
    return {field: getattr(job, field) for field in FIELDS} | {"args": list(job.args), "output": output.decode()}


def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without what a lost machine does not leave: SQLite's shared memory."""
    return None if entry.name.endswith("-shm") else entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))

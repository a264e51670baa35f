"""`joblet doctor` on this host, on the same host with something taken away, and as an unprivileged user."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PATIENCE, Server, groups

from joblet import pki, revocation

NOBODY = 65534
Rows = dict[str, dict[str, str]]


@pytest.fixture
def write_config(tmp_path: Path, certificates: Path) -> Callable[..., Path]:
    """Writes a configuration with sections of its own; its state directory is there."""

    def write(**sections: dict[str, object]) -> Path:
        (tmp_path / "state").mkdir(mode=0o700, exist_ok=True)
        config: dict[str, dict[str, object]] = {
            "server": {"address": "127.0.0.1", "port": 1, "stateDir": str(tmp_path / "state")},
            "security": {
                "caCert": str(certificates / "ca-cert.pem"),
                "serverCert": str(certificates / "server-cert.pem"),
                "serverKey": str(certificates / "server-key.pem"),
            },
        }
        for name, values in sections.items():
            config[name] = {**config.get(name, {}), **values}
        path = tmp_path / "joblet-config.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def command(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "joblet", "doctor", "--config", str(config), *options]


def examine(config: Path, *prefix: str) -> tuple[int, Rows]:
    """The exit status and the rows by their names."""
    done = subprocess.run(
        [*prefix, *command(config, "--json")], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stderr == ""
    return done.returncode, rows_of(json.loads(done.stdout))


def rows_of(report: dict[str, Any]) -> Rows:
    rows = {row["check"]: row for row in report["checks"]}
    assert len(rows) == len(report["checks"]), "two rows of one name"
    for row in rows.values():
        assert row["host"] != "cannot be found out", row
        assert bool(row["advice"]) == (row["verdict"] != "ok"), row
    return rows


def without(setup: str) -> list[str]:
    """Run what follows in a mount namespace of its own, after the shell commands of `setup`."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{setup}\nexec "$@"', "sh"]


def verdict(rows: Rows, check: str) -> str:
    return rows[check]["verdict"]


def test_this_host_runs_jobs(write_config: Callable[..., Path], server: Server) -> None:
    status, rows = examine(write_config(server={"port": server.port}))
    assert status == 0
    assert not [row for row in rows.values() if row["verdict"] == "fails"]
    for check in ("system calls", "memory", "job groups", "namespaces", "/proc", "seccomp", "trial job", "id pool"):
        assert verdict(rows, check) == "ok", rows[check]
    assert rows["server"]["host"] == f"answers at 127.0.0.1:{server.port}"
    assert rows["namespaces"]["host"] == "user, pid, mnt, uts, ipc, cgroup, net: made"
    assert rows["tls"]["host"] == "certificate and key belong together"


def test_it_leaves_nothing_behind(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = write_config()
    mounts = Path("/proc/self/mountinfo").read_text()
    examine(config)
    assert list((tmp_path / "state").iterdir()) == []
    assert groups("doctor-*") == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_the_table_and_json_say_the_same(write_config: Callable[..., Path]) -> None:
    config = write_config()
    _, rows = examine(config)
    done = subprocess.run(command(config), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    table = re.findall(r"^(ok|note|gap|fails) +(\S+(?: \S+)*)  ", done.stdout, re.MULTILINE)
    assert table == [(row["verdict"], row["check"]) for row in rows.values()]


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_table_is_no_wider_than_the_terminal(write_config: Callable[..., Path], columns: int) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        command(write_config()), stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True
    )
    os.close(follower)
    output = b""
    try:
        while piece := os.read(leader, 65536):
            output += piece
    except OSError as error:  # what a terminal says when its last user has gone
        assert error.errno == errno.EIO
    os.close(leader)
    assert child.wait(PATIENCE) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).split("\r\n")
    assert len(lines) > 40
    assert max(map(len, lines)) <= columns


AS_NOBODY = f"""
import json, os, sys
from pathlib import Path
from joblet.doctor import examine, render
config = Path(sys.argv[1])
# As root first, which imports what the second needs: nobody else may be let into this environment.
render(examine(config), terminal=False)
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
report = examine(config)
print(json.dumps(report.as_dict()))
sys.exit(report.status)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that everybody may look into, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="joblet-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_an_unprivileged_user_is_told_what_only_root_sees(
    write_config: Callable[..., Path], open_directory: Path
) -> None:
    config = open_directory / "joblet-config.yml"
    config.write_bytes(write_config().read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(config)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    rows = rows_of(report)
    assert done.returncode == 0
    assert report["root"] is False
    assert report["summary"].startswith("Nothing seen that keeps jobs from running here; only root sees everything")
    assert rows["privileges"]["host"] == f"user id {NOBODY}, unprivileged"
    for check in ("job groups", "trial job", "key"):
        assert rows[check]["host"] == "only root can find out", rows[check]
    for check in ("kernel", "system calls", "memory", "seccomp", "boot id"):
        assert verdict(rows, check) == "ok", rows[check]


def test_a_missing_capability_fails(write_config: Callable[..., Path]) -> None:
    status, rows = examine(write_config(), "setpriv", "--bounding-set", "-sys_admin,-setuid")
    assert status == 1
    assert verdict(rows, "privileges") == verdict(rows, "trial job") == verdict(rows, "/proc") == "fails"
    assert "CAP_SETUID, CAP_SYS_ADMIN" in rows["privileges"]["advice"]


def test_a_missing_system_call_fails(write_config: Callable[..., Path]) -> None:
    code = (
        "import errno, os, sys\n"
        "from joblet.doctor import kernel\n"
        "kernel.refuse_by_filter(kernel.OPENAT2, errno.ENOSYS)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    status, rows = examine(write_config(), sys.executable, "-c", code)
    assert status == 1
    assert rows["system calls"]["host"] == "missing: openat2"
    assert verdict(rows, "trial job") == "fails"


def test_no_control_groups_fail(write_config: Callable[..., Path]) -> None:
    status, rows = examine(write_config(), *without("umount --recursive --lazy /sys/fs/cgroup"))
    assert status == 1
    assert rows["mode"]["host"] == "no control groups are mounted"
    assert rows["trial job"]["host"].startswith("cgroup setup failed")
    assert "memory" not in rows


def test_read_only_control_groups_fail(write_config: Callable[..., Path]) -> None:
    setup = (
        "grep ' - cgroup2\\? ' /proc/self/mountinfo | cut -d' ' -f5 | while read -r mount; do\n"
        '  mount -o remount,bind,ro "$mount"\n'
        "done"
    )
    status, rows = examine(write_config(), *without(setup))
    assert status == 1
    assert rows["memory"]["host"].endswith(", read-only")
    assert verdict(rows, "memory") == verdict(rows, "job groups") == "fails"


def test_jobs_run_in_a_chroot_too(write_config: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    status, rows = examine(write_config(), *without(f"mount --rbind / {root}"), "chroot", str(root))
    assert status == 0
    assert (rows["root directory"]["host"], verdict(rows, "root directory")) == ("a chroot", "note")
    assert verdict(rows, "namespaces") == verdict(rows, "trial job") == "ok"


def test_a_state_directory_in_memory_is_a_gap(write_config: Callable[..., Path], tmp_path: Path) -> None:
    status, rows = examine(write_config(), *without(f"mount -t tmpfs -o size=64m none {tmp_path}/state"))
    assert status == 0
    assert rows["room"]["host"].startswith("tmpfs on none, 67 MB")
    assert verdict(rows, "room") == verdict(rows, "disks") == "gap"


def test_a_state_directory_that_cannot_be_written_fails(write_config: Callable[..., Path], tmp_path: Path) -> None:
    status, rows = examine(write_config(), *without(f"mount -t tmpfs -o ro none {tmp_path}/state"))
    assert status == 1
    assert rows["durable writes"]["host"] == f"{tmp_path}/state: read-only file system"
    assert verdict(rows, "trial job") == "fails"


def test_ids_of_a_user_in_the_pool_fail(write_config: Callable[..., Path], tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + "eve:x:1879048200:1879048200::/:/bin/sh\n")
    status, rows = examine(write_config(), *without(f"mount --bind {passwd} /etc/passwd"))
    assert status == 1
    assert "eve in /etc/passwd" in rows["id pool"]["host"]
    assert verdict(rows, "trial job") == "ok"
    moved = write_config(isolation={"idBase": 1880000000, "idRanges": 100})
    assert examine(moved, *without(f"mount --bind {passwd} /etc/passwd"))[0] == 0


def test_a_bad_configuration_fails_and_names_each_fault(write_config: Callable[..., Path]) -> None:
    status, rows = examine(write_config(joblet={"bogus": 1, "maxConcurrentJobs": 0}))
    assert status == 1
    assert "joblet.bogus: unknown key" in rows["configuration"]["host"]
    assert "joblet.maxConcurrentJobs" in rows["configuration"]["host"]


def test_a_default_that_the_host_does_not_have_fails(write_config: Callable[..., Path]) -> None:
    status, rows = examine(write_config(joblet={"defaultMemoryLimit": 2_000_000_000}))
    assert status == 1
    assert "joblet.defaultMemoryLimit: 2000000000 is more than this host has" in rows["configuration"]["host"]


def test_a_path_that_jobs_cannot_be_shown_fails(write_config: Callable[..., Path]) -> None:
    status, rows = examine(write_config(isolation={"readOnly": ["/srv/joblet-absent"]}))
    assert status == 1
    assert "/srv/joblet-absent does not exist" in rows["trial job"]["host"]


def test_a_configuration_that_is_not_there_fails_if_it_was_named(tmp_path: Path) -> None:
    status, rows = examine(tmp_path / "none.yml")
    assert status == 1
    assert rows["configuration"]["host"] == f"{tmp_path}/none.yml: not there"


def test_certificates_that_will_not_do_fail(write_config: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "own"
    ca, other = pki.create_ca(), pki.create_ca()
    pki.save(ca, folder, "ca")
    certificate, key = pki.save(pki.issue_server(other, days=10), folder, "server")
    key.chmod(0o644)
    paths = {"caCert": str(folder / "ca-cert.pem"), "serverCert": str(certificate), "serverKey": str(key)}
    status, rows = examine(write_config(security=paths))
    assert status == 1
    assert verdict(rows, "authority") == "ok"
    assert (verdict(rows, "certificate"), verdict(rows, "key")) == ("gap", "fails")
    assert "of another authority" in rows["certificate"]["host"]
    assert "mode 644" in rows["key"]["host"]

    assert "revocations" not in rows

    key.write_bytes(other.key_pem)
    key.chmod(0o600)
    (folder / "ca-cert.pem").write_bytes(ca.certificate_pem + other.certificate_pem)
    (folder / "crl.pem").write_bytes(revocation.sign(pki.create_ca(), {}, 1))
    status, rows = examine(write_config(security=paths))
    assert (status, verdict(rows, "tls"), verdict(rows, "revocations")) == (1, "fails", "fails")
    assert "of another authority" not in rows["certificate"]["host"]

    certificate.unlink()
    status, rows = examine(write_config(security=paths))
    assert (status, verdict(rows, "certificate")) == (1, "fails")
    assert "tls" not in rows


def test_what_listens_there_may_be_no_joblet(write_config: Callable[..., Path], server: Server) -> None:
    _, rows = examine(write_config(server={"port": 1}))
    assert rows["server"]["host"] == "does not answer at 127.0.0.1:1: connection refused"
    assert verdict(rows, "server") == "note"

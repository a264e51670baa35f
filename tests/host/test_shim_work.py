"""The real shim, driven through its protocol: where a job starts, what it gives out, and what it shares with others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_harness import UID_BASE, Entries, Launcher, Shim, job_entries

pytest_plugins = ["shim_harness"]

OUTPUTS = [("outputs", ".joblet-output")]
MOST = 65536
OWNER = UID_BASE - 1


def output(launcher: Launcher, code: str, extra: Entries, **changes: str) -> str:
    """All that a shell script says, which succeeds."""
    shim = launcher.run("sh", "-ec", code, extra=extra, **changes)
    assert shim.record.get("code") == "0", (shim.record, shim.log)
    return shim.log.decode()


# --- where it starts ------------------------------------------------------------------------------------------------


def test_a_command_starts_where_it_was_asked_to(launcher: Launcher) -> None:
    job = launcher.make_directory()
    (job / "work/a/b").mkdir(parents=True)
    (job / "work/a/b/tool").write_text("#!/bin/sh\npwd\n")
    (job / "work/a/b/tool").chmod(0o755)
    shim = launcher.start(job_entries("./tool", extra=[("cwd", "/work/a/b")]), directory=job)
    shim.wait()
    assert shim.log == b"/work/a/b\n"
    assert output(launcher, "pwd", [("cwd", "/tmp")]) == "/tmp\n"


@pytest.mark.parametrize(
    ("cwd", "errno", "sentence"),
    [
        ("/nowhere", 2, "/nowhere: no such file or directory"),
        ("/etc/passwd", 20, "/etc/passwd: not a directory"),
        ("/no\nwhere\x7f", 2, "/no?where?: no such file or directory"),
        ("/" + "x" * 300, 36, "/" + "x" * 199 + ": file"),
        ("/work/../..", 0, ""),
    ],
)
def test_a_directory_that_is_not_there_fails_the_launch(
    launcher: Launcher, cwd: str, errno: int, sentence: str
) -> None:
    shim = launcher.start(job_entries("true", extra=[("cwd", cwd)]))
    report, record = shim.report(), shim.wait()
    if errno == 0:
        assert report.startswith("started "), "it leads nowhere but into the job's own root"
        return
    assert report.startswith(f"failed exec {errno} cannot enter {sentence}")
    assert (record["stage"], record["errno"]) == ("exec", str(errno))
    assert shim.log == f"joblet: {record['reason']}\n".encode()


def test_a_directory_is_entered_as_the_job_and_not_as_root(launcher: Launcher, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shim = launcher.start(job_entries("true", extra=[("ro", str(closed)), ("cwd", str(closed))]))
    assert shim.report() == f"failed exec 13 cannot enter {closed}: permission denied\n"


# --- what it gives out ----------------------------------------------------------------------------------------------


def make_disk(job: Path) -> None:
    with open(job / "disk", "xb") as image:
        image.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b4096", "-m0", "-O", "^has_journal", job / "disk"], check=True)


def give_out(launcher: Launcher, code: str, *, disk: bool = False) -> Shim:
    job = launcher.make_directory()
    extra = list(OUTPUTS)
    if disk:
        make_disk(job)
        extra.append(("disk", ""))
    shim = launcher.start(job_entries("sh", "-ec", code, extra=extra), directory=job)
    shim.started()
    shim.wait()
    return shim


def loop_devices_of(image: Path) -> list[str]:
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if entry.read_text().strip() == str(image):
                found.append(entry.parts[3])
    return found


@pytest.mark.parametrize("disk", [False, True], ids=["plain", "disk"])
@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -KILL $$"])
def test_what_a_job_gives_out_is_kept_however_it_ends(launcher: Launcher, disk: bool, end: str) -> None:
    shim = give_out(launcher, f"echo A=1 >> .joblet-output; printf 'B=\\377' >> .joblet-output; {end}", disk=disk)
    assert (shim.directory / "outputs").read_bytes() == b"A=1\nB=\xff"
    assert (shim.directory / "outputs").stat().st_mode & 0o777 == 0o600
    assert shim.record["outputs"] == "7"
    assert "outputs_error" not in shim.record
    assert not loop_devices_of(shim.directory / "disk"), "the monitor has let go of the disk"


@pytest.mark.parametrize("disk", [False, True], ids=["plain", "disk"])
def test_a_job_that_gives_nothing_out_leaves_no_such_file(launcher: Launcher, disk: bool) -> None:
    shim = give_out(launcher, "true", disk=disk)
    assert not {"outputs", "outputs_error"} & shim.record.keys()
    assert not (shim.directory / "outputs").exists()
    shim = give_out(launcher, ": > .joblet-output", disk=disk)
    assert shim.record["outputs"] == "0"


def test_as_much_as_is_allowed_is_kept_and_no_byte_more(launcher: Launcher) -> None:
    shim = give_out(launcher, f"head -c {MOST} /dev/zero > .joblet-output")
    assert (shim.directory / "outputs").read_bytes() == bytes(MOST)
    shim = give_out(launcher, f"head -c {MOST + 1} /dev/zero > .joblet-output")
    assert shim.record["outputs_error"] == "larger than 65536 bytes"


SECRET = "/etc/shadow"
"""a file of the host that root can read"""


@pytest.mark.parametrize("disk", [False, True], ids=["plain", "disk"])
@pytest.mark.parametrize(
    ("planted", "error"),
    [
        (f"ln -s {SECRET} .joblet-output", "not a regular file"),
        ("ln -s ../exit .joblet-output", "not a regular file"),
        ("echo A=1 > real; ln -s real .joblet-output", "not a regular file"),
        ("ln -s .joblet-output .joblet-output", "not a regular file"),
        ("mkfifo .joblet-output", "not a regular file"),
        ("mkdir .joblet-output", "not a regular file"),
        (
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\".joblet-output\")'",
            "not a regular file",
        ),
        ("truncate -s 1T .joblet-output", "larger than 65536 bytes"),
    ],
    ids=["link", "link-up", "link-here", "loop", "fifo", "directory", "socket", "sparse"],
)
def test_what_a_job_plants_at_its_outputs_is_not_followed_nor_waited_for(
    launcher: Launcher, planted: str, error: str, disk: bool
) -> None:
    shim = give_out(launcher, planted, disk=disk)
    assert (shim.record["code"], shim.record["outputs_error"]) == ("0", error)
    assert "outputs" not in shim.record
    assert not (shim.directory / "outputs").exists()


def test_no_file_of_another_mount_can_be_linked_to_the_outputs(launcher: Launcher) -> None:
    code = "for f in /etc/passwd /tmp/x; do touch /tmp/x; ln $f .joblet-output 2>/dev/null || echo refused; done"
    shim = give_out(launcher, code)
    assert shim.log == b"refused\nrefused\n"
    assert "outputs" not in shim.record


def test_a_file_that_somebody_changes_meanwhile_is_one_of_those_it_was(launcher: Launcher) -> None:
    """Nobody of the job is left by then, but whoever it has passed a descriptor on to."""
    over = threading.Event()
    where: list[Path] = []

    def swap() -> None:
        while not over.is_set():
            for work in where:
                with contextlib.suppress(OSError):
                    for text in ("A=1\n" * 99, "B=22\n" * 99):
                        (work / "new").write_text(text)
                        (work / "new").rename(work / ".joblet-output")
                    (work / "new").symlink_to(SECRET)
                    (work / "new").rename(work / ".joblet-output")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(30):
            job = launcher.make_directory()
            where[:] = [job / "work"]
            shim = launcher.start(job_entries("true", extra=OUTPUTS), directory=job)
            record = shim.wait()
            if "outputs" in record:
                kept = (job / "outputs").read_bytes()
                assert kept in (b"A=1\n" * 99, b"B=22\n" * 99)
                assert record["outputs"] == str(len(kept))
            else:
                assert record.get("outputs_error", "not a regular file") == "not a regular file"
    finally:
        over.set()
        swapping.join()


def test_outputs_for_which_there_is_no_room_cost_neither_the_job_nor_its_record(launcher: Launcher) -> None:
    directory = launcher.directory / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "joblet-test", directory], check=True)
    try:
        job = launcher.make_directory(directory)
        code = "head -c 60000 /dev/zero > .joblet-output; head -c 4000000 /dev/zero > rest || exit 6"
        shim = launcher.start(job_entries("sh", "-c", code, extra=OUTPUTS), directory=job)
        shim.started()
        record = shim.wait()
        assert (record["code"], record["outputs_error"]) == ("6", "no space left on device")
    finally:
        subprocess.run(["umount", directory], check=True)


# --- what it shares -------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """As the server makes it: below a directory that only root can enter, not mounted nosuid."""
    folder = tmp_path / "workflows/1/shared"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "workflows").chmod(0o700)
    os.chown(folder, OWNER, OWNER)
    return folder


def test_two_jobs_of_a_workflow_write_to_one_directory_as_root_of_each(launcher: Launcher, shared: Path) -> None:
    extra = [("shared", str(shared))]
    said = output(launcher, "stat -c '%u %a' /workflow; mkdir /workflow/d; echo one > /workflow/d/f", extra)
    assert said == "0 700\n"
    code = "stat -c %u /workflow/d/f; cat /workflow/d/f; echo two >> /workflow/d/f; mv /workflow/d/f /workflow/g"
    assert output(launcher, code, extra, uid_base=str(UID_BASE + 65536)) == "0\none\n"
    made = shared / "g"
    assert made.read_text() == "one\ntwo\n"
    assert (made.stat().st_uid, made.stat().st_gid) == (OWNER, OWNER)


def test_both_are_there_at_once(launcher: Launcher, shared: Path) -> None:
    os.mkfifo(shared / "pipe")
    os.chown(shared / "pipe", OWNER, OWNER)
    extra = [("shared", str(shared))]
    reader = launcher.start(job_entries("cat", "/workflow/pipe", extra=extra))
    output(launcher, "echo across > /workflow/pipe", extra, uid_base=str(UID_BASE + 65536))
    reader.wait()
    assert reader.log == b"across\n"


def test_what_a_job_leaves_setuid_gives_nobody_anything(launcher: Launcher, shared: Path) -> None:
    extra = [("shared", str(shared))]
    output(launcher, "cp /usr/bin/id /workflow/id; chmod 6755 /workflow/id", extra)
    status = (shared / "id").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7000) == (OWNER, OWNER, 0o6000), "not root's on the host"
    code = "grep -o ' /workflow [a-z,]*' /proc/self/mountinfo; /workflow/id -u"  # proc_pid_mountinfo(5)
    said = output(launcher, code, extra, uid_base=str(UID_BASE + 65536))
    options, user = said.splitlines()
    assert {"nosuid", "nodev"} <= set(options.split()[1].split(","))
    assert user == "0"


def test_no_way_leads_out_of_a_shared_directory_to_another(launcher: Launcher, shared: Path) -> None:
    other = shared.parent.parent / "2/shared"
    other.mkdir(parents=True)
    os.chown(other, OWNER, OWNER)
    (other / "theirs").write_text("theirs")
    os.chown(other / "theirs", OWNER, OWNER)
    code = (
        "cd /workflow; ls -d ..; ls /; ln -s ../../2/shared/theirs a; ln -s $0 b;"
        "cat a b 2>/dev/null || echo gone; ln /etc/passwd c 2>/dev/null || echo refused"
    )
    shim = launcher.run("sh", "-c", code, str(other / "theirs"), extra=[("shared", str(shared))])
    said = shim.log.decode().split()
    assert said[-2:] == ["gone", "refused"]
    assert "workflow" in said
    assert "theirs" not in said


def test_without_a_shared_directory_there_is_none(launcher: Launcher) -> None:
    assert output(launcher, "ls -d /workflow 2>/dev/null || echo none", []) == "none\n"


def test_a_shared_directory_that_root_owns_is_refused(launcher: Launcher, shared: Path) -> None:
    os.chown(shared, 0, 0)
    shim = launcher.start(job_entries("true", extra=[("shared", str(shared))]))
    assert shim.report() == "failed rootfs 1 failed to create isolated environment: operation not permitted\n"
    assert b"root owns" in shim.log


def test_no_link_is_followed_to_a_shared_directory(launcher: Launcher, shared: Path) -> None:
    link = shared.parent / "link"
    link.symlink_to("shared")
    shim = launcher.start(job_entries("true", extra=[("shared", str(link))]))
    assert shim.report().startswith("failed rootfs 40 ")


@pytest.fixture
def plain_mount(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system whose mounts cannot map ids."""
    folder = tmp_path / "ram"
    folder.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "joblet-test", folder], check=True)
    (folder / "shared").mkdir()
    os.chown(folder / "shared", OWNER, OWNER)
    yield folder / "shared"
    subprocess.run(["umount", folder], check=True)


def test_where_ids_cannot_be_mapped_a_job_is_not_run_without_its_directory(
    launcher: Launcher, plain_mount: Path
) -> None:
    shim = launcher.start(job_entries("true", extra=[("shared", str(plain_mount))]))
    assert shim.report().startswith("failed rootfs 22 failed to create isolated environment: invalid argument")
    assert b"mount_setattr MOUNT_ATTR_IDMAP" in shim.log

"""The real shim, driven through its protocol: what a job sees and may do (shim/PROTOCOL.md)."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import mounted_nosuid
from shim_harness import (
    ID_COUNT,
    UID_BASE,
    Entries,
    Launcher,
    base_entries,
    encode,
    job_entries,
    landlock_abi,
    wait_until,
)

pytest_plugins = ["shim_harness"]


def output(launcher: Launcher, *argv: str, extra: Entries | None = None, **changes: str) -> str:
    """All that a command says, which succeeds."""
    shim = launcher.run(*argv, extra=extra, **changes)
    assert shim.record.get("code") == "0", (shim.record, shim.log)
    return shim.log.decode()


def python(launcher: Launcher, code: str, *argv: str, extra: Entries | None = None) -> str:
    return output(launcher, "python3", "-I", "-c", code, *argv, extra=extra)


def test_the_job_sees_its_own_processes_only(launcher: Launcher) -> None:
    code = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), os.getpid(), os.getppid())"
    pids, own, parent = python(launcher, code).rsplit(" ", 2)
    assert (pids, int(parent)) == (f"[{int(own)}]", 1)


def test_of_the_init_the_job_learns_nothing(launcher: Launcher) -> None:
    code = (
        "for name in ('environ', 'maps', 'mem', 'fd/3', 'cwd', 'root', 'exe', 'ns/user'):\n"
        " try: open('/proc/1/' + name).read(1); print(name)\n"
        " except OSError: pass\n"
    )
    assert python(launcher, code) == ""


def test_the_host_name_is_the_jobs(launcher: Launcher) -> None:
    assert output(launcher, "uname", "-n", hostname="some-name") == "some-name\n"
    assert platform.node() != "some-name"


def test_ids_are_mapped_to_the_jobs_range(launcher: Launcher) -> None:
    mapped = output(launcher, "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    assert mapped == ["0", str(UID_BASE), str(ID_COUNT)] * 2
    assert output(launcher, "sh", "-c", "id -u; id -g; id -G") == "0\n0\n0\n"


def test_what_the_job_writes_belongs_to_its_range(launcher: Launcher) -> None:
    shim = launcher.run("sh", "-c", "umask; mkdir d; echo x >d/f")
    made = (shim.directory / "work/d/f").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (UID_BASE, UID_BASE, 0o644)
    assert shim.log == b"0022\n"


def test_no_privilege_is_left(launcher: Launcher) -> None:
    text = output(launcher, "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")


def test_core_dumps_are_off(launcher: Launcher) -> None:
    """1 byte: no file is that small, and a handler behind a pipe is not started for it, as it would be for 0."""
    assert python(launcher, "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))") == "(1, 1)\n"


def test_open_files_are_limited(launcher: Launcher) -> None:
    code = (
        "import errno, os\n"
        "try:\n"
        "  while True: last = os.open('/dev/null', os.O_RDONLY)\n"
        "except OSError as error: print(last, errno.errorcode[error.errno])"
    )
    assert output(launcher, "python3", "-c", code, open_files="50") == "49 EMFILE\n"


def test_what_the_shim_cannot_grant_it_does_not_run_with_less_of(launcher: Launcher) -> None:
    """More open files than the kernel gives to anyone (fs.nr_open)."""
    shim = launcher.start(job_entries("true", open_files=str(2**31 - 1)))
    assert shim.report() == "failed privileges 1 failed to create isolated environment: operation not permitted\n"


def test_a_work_directory_on_a_disk_of_its_own_is_as_big_as_that(launcher: Launcher) -> None:
    code = (
        "import errno, os\n"
        "print(os.listdir('.'), os.stat('.').st_uid, oct(os.stat('.').st_mode))\n"
        "written = 0\n"
        "try:\n"
        "  with open('f', 'wb', buffering=0) as file:\n"
        "    while True: written += file.write(bytes(1 << 20))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "print(written >> 20)"
    )
    job = launcher.make_directory()
    make_disk(job, 64)
    shim = launcher.start(job_entries("python3", "-c", code, extra=[("disk", "")]), directory=job)
    shim.started()
    assert shim.wait()["code"] == "0"
    listing, error, written = shim.log.decode().splitlines()
    assert (listing, error) == ("[] 0 0o40755", "ENOSPC")
    assert 56 <= int(written) <= 64
    assert os.listdir(job / "work") == []
    assert not loop_devices_of(job / "disk")


def test_the_loop_device_goes_with_a_shim_that_is_killed(launcher: Launcher) -> None:
    job = launcher.make_directory()
    make_disk(job, 16)
    shim = launcher.start(job_entries("sleep", "1000", extra=[("disk", "")]), directory=job)
    shim.started()
    assert len(loop_devices_of(job / "disk")) == 1
    shim.signal(signal.SIGKILL)
    shim.wait()
    wait_until(lambda: not loop_devices_of(job / "disk"))


def test_a_disk_that_is_no_file_system_fails_the_launch(launcher: Launcher) -> None:
    job = launcher.make_directory()
    (job / "disk").write_bytes(bytes(1 << 20))
    shim = launcher.start(job_entries("true", extra=[("disk", "")]), directory=job)
    assert shim.report().startswith("failed rootfs 22 failed to create isolated environment: invalid argument")
    assert b"fsconfig create ext4" in shim.log


def make_disk(job: Path, megabytes: int) -> None:
    with open(job / "disk", "xb") as image:
        image.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b4096", "-m0", "-O", "^has_journal", job / "disk"], check=True)


def loop_devices_of(image: Path) -> list[str]:
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if entry.read_text().strip() == str(image):
                found.append(entry.parts[3])
    return found


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory of an unprivileged user, mounted nosuid."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, 12345, 23456)
    with mounted_nosuid(folder):
        yield folder


def test_a_writable_path_is_its_owners_to_the_job(launcher: Launcher, shared: Path) -> None:
    """The owner's files are root's inside; those of others, root's above all, can be seen and not written."""
    (shared / "theirs").write_text("theirs")
    (shared / "roots").write_text("roots")
    os.chown(shared / "theirs", 12345, 23456)
    code = (
        "stat -c %u:%g . theirs; stat -c %u:%g roots; echo more >>theirs; mkdir d; echo new >d/f; cat d/f;"
        "(echo x >>roots) 2>/dev/null || echo refused; chown 5:5 d/f 2>/dev/null || echo refused; mv d/f moved"
    )
    shown = output(launcher, "sh", "-c", f"cd {shared} && {code}", extra=[("rw", str(shared))])
    assert shown == "0:0\n0:0\n65534:65534\nnew\nrefused\nrefused\n"
    assert (shared / "theirs").read_text() == "theirsmore\n"
    made = (shared / "moved").stat()
    assert (made.st_uid, made.st_gid) == (12345, 23456)


def test_a_writable_path_of_root_is_refused(launcher: Launcher, shared: Path) -> None:
    os.chown(shared, 0, 0)
    shim = launcher.start(job_entries("true", extra=[("rw", str(shared))]))
    assert shim.report() == "failed rootfs 1 failed to create isolated environment: operation not permitted\n"
    assert b"root owns" in shim.log


def test_a_writable_path_that_may_hold_setuid_programs_is_refused(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", 12345, 12345)
    shim = launcher.start(job_entries("true", extra=[("rw", f"{tmp_path}/shared")]))
    assert shim.report() == "failed rootfs 1 failed to create isolated environment: operation not permitted\n"
    assert b"not mounted nosuid" in shim.log


def test_no_link_is_followed_to_a_writable_path(launcher: Launcher, shared: Path) -> None:
    """Who may write to the directory above could have put the link there."""
    (shared / "elsewhere/d").mkdir(parents=True)
    os.chown(shared / "elsewhere/d", 12345, 12345)
    (shared / "link").symlink_to("elsewhere")
    shim = launcher.start(job_entries("true", extra=[("rw", f"{shared}/link/d")]))
    assert shim.report().startswith("failed rootfs 40 ")


def test_writable_files_and_several_paths_work(launcher: Launcher, shared: Path) -> None:
    names = [shared / name for name in "abc"]
    for name in names:
        name.write_text("")
        os.chown(name, 12345, 12345)
    extra = [("rw", str(name)) for name in names]
    output(launcher, "sh", "-c", f"for f in {' '.join(map(str, names))}; do echo $f >$f; done", extra=extra)
    assert [name.read_text() for name in names] == [f"{name}\n" for name in names]


needs_scopes = pytest.mark.skipif(
    landlock_abi() < 6, reason=f"this kernel has Landlock ABI {landlock_abi()}, scopes came with 6"
)


@needs_scopes
def test_an_abstract_socket_of_the_host_cannot_be_reached(launcher: Launcher) -> None:
    name = f"\0joblet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        code = (
            "import errno, socket, sys\n"
            "own = socket.socket(socket.AF_UNIX); own.bind('\\0own'); own.listen()\n"
            "socket.socket(socket.AF_UNIX).connect('\\0own')\n"
            "try: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])\n"
            "except OSError as error: print(errno.errorcode[error.errno])"
        )
        assert python(launcher, code, name[1:]) == "EPERM\n"


@pytest.mark.skipif(landlock_abi() < 2, reason=f"this kernel has Landlock ABI {landlock_abi()}")
def test_files_move_between_directories_and_not_elsewhere(launcher: Launcher) -> None:
    code = (
        "mkdir a b; echo x >a/f; mv a/f b/g; ln b/g a/h; cat a/h; cp a/h /tmp/i; mv /tmp/i /dev/shm/j; cat /dev/shm/j"
    )
    assert output(launcher, "sh", "-c", code) == "x\nx\n"


def test_only_standard_descriptors_are_open(launcher: Launcher) -> None:
    code = (
        "import os\n"
        "fds = sorted(os.listdir('/proc/self/fd'))[:-1]\n"
        "print({fd: os.readlink('/proc/self/fd/' + fd).split(':')[0] for fd in fds})"
    )
    assert python(launcher, code) == "{'0': '/dev/null', '1': 'pipe', '2': 'pipe'}\n"


def test_the_command_leads_a_session_of_its_own(launcher: Launcher) -> None:
    assert python(launcher, "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())") == "True\n"


def test_only_what_is_shown_is_there(launcher: Launcher) -> None:
    names = set(output(launcher, "ls", "-A", "/").split())
    shown = {path.removeprefix("/") for key, path in base_entries() if key == "ro"}
    assert names == shown | {"dev", "proc", "tmp", "work"}
    assert output(launcher, "ls", "-A", "/tmp", "/dev/shm") == "/dev/shm:\n\n/tmp:\n"
    devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(output(launcher, "ls", "-A", "/dev").split()) == devices


def test_links_stay_links(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere/in particular")
    assert (
        output(launcher, "readlink", f"{tmp_path}/link", extra=[("ro", f"{tmp_path}/link")])
        == "nowhere/in particular\n"
    )


def test_a_single_file_is_shown_alone(launcher: Launcher, tmp_path: Path) -> None:
    shown = tmp_path / "a/b/shown"
    shown.parent.mkdir(parents=True)
    shown.write_text("text")
    (shown.parent / "hidden").touch()
    code = f"cat {shown}; ls -A {shown.parent}; ! echo x 2>/dev/null >{shown}"
    assert output(launcher, "sh", "-c", code, extra=[("ro", str(shown))]) == "textshown\n"


def test_a_path_below_a_shown_one_may_be_shown_too(launcher: Launcher) -> None:
    extra = [("ro", "/usr/bin"), ("ro", "/etc/passwd"), ("ro", os.path.realpath("/bin/sh"))]
    assert output(launcher, "head", "-c4", "/etc/passwd", extra=extra) == "root"


@pytest.mark.parametrize("path", ["/x", "/usr/x", "/etc/x", "/dev/x", "/proc/x", "/bin/x"])
def test_the_system_is_read_only(launcher: Launcher, path: str) -> None:
    assert launcher.run("touch", path).record["code"] == "1"
    assert not os.path.lexists(path)


def test_every_mount_is_as_harmless_as_it_can_be(launcher: Launcher) -> None:
    writable = {"/tmp", "/dev/shm", "/dev/mqueue", "/work", "/proc", "/dev/pts"}
    places = set()
    for line in output(launcher, "cat", "/proc/self/mountinfo").splitlines():
        _, _, _, _, place, options, *_ = line.split()
        flags = set(options.split(","))
        assert "nosuid" in flags, line
        assert ("ro" in flags) == (place not in writable), line
        assert "nodev" in flags or {"noexec"} <= flags, line
        assert "shared:" not in line
        places.add(place)
    assert writable | {"/", "/dev", "/usr"} <= places


def test_tmp_is_limited_in_bytes_and_in_files(launcher: Launcher) -> None:
    code = (
        "import errno, os\n"
        "for folder in ('/tmp/', '/dev/shm/'):\n"
        " try: open(folder + 'big', 'wb').write(bytes(3 << 20))\n"
        " except OSError as error: print(errno.errorcode[error.errno])\n"
        " os.truncate(folder + 'big', 0)\n"
        " try:\n"
        "  for i in range(1 << 17): open(f'{folder}{i}', 'w').close()\n"
        " except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    shim = launcher.run("python3", "-c", code, tmp_bytes=str(2 << 20))
    assert shim.log == b"ENOSPC\n" * 4


def test_masks_hide_files_and_directories(launcher: Launcher, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    tmp_path.chmod(0o755)
    (shown / "secrets/deep").mkdir(parents=True)
    (shown / "secrets/key").write_text("secret")
    (shown / "file").write_text("secret")
    (shown / "link").symlink_to("file2")
    (shown / "file2").write_text("secret")
    masked = [f"{shown}/{name}" for name in ("secrets", "file", "link", "absent", "file/below")]
    extra = [("ro", str(shown)), *(("mask", path) for path in masked)]
    code = f"cd {shown}; ls -A secrets; cat file link file2; ls; ! touch secrets/x 2>/dev/null"
    assert output(launcher, "sh", "-c", code, extra=extra) == "file\nfile2\nlink\nsecrets\n"
    assert (shown / "file").read_text() == "secret"


def test_a_work_directory_that_is_a_link_is_refused(launcher: Launcher) -> None:
    directory = launcher.make_directory()
    (directory / "work").rmdir()
    (directory / "work").symlink_to("/etc")
    shim = launcher.start(job_entries("true"), directory=directory)
    assert shim.report().startswith("failed rootfs ")


def test_the_work_directory_may_be_anywhere(launcher: Launcher) -> None:
    assert output(launcher, "pwd", work="/home/user/some where") == "/home/user/some where\n"


def test_the_groups_look_like_the_root(launcher: Launcher) -> None:
    text = output(launcher, "cat", "/proc/self/cgroup")
    assert {line.split(":", 2)[2] for line in text.splitlines()} == {"/"}


CALLS = {
    "ptrace": 101, "syslog": 103, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "swapon": 167,
    "reboot": 169, "sethostname": 170, "init_module": 175, "settimeofday": 164, "clock_settime": 227, "kexec_load": 246,
    "add_key": 248, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "kcmp": 312, "finit_module": 313, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
    "io_uring_register": 427, "open_tree": 428, "fsopen": 430, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86-64's")
CALL = "import ctypes, errno, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@needs_x86
def test_calls_that_no_job_needs_are_refused(launcher: Launcher) -> None:
    code = (
        CALL
        + "for n in sys.argv[1:]:\n libc.syscall(int(n), 0, 0, 0, 0, 0); print(n, errno.errorcode[ctypes.get_errno()])"
    )
    text = python(launcher, code, *map(str, CALLS.values()))
    assert text.split() == [word for number in CALLS.values() for word in (str(number), "EPERM")]


@needs_x86
def test_calls_that_the_filter_does_not_know_do_not_exist(launcher: Launcher) -> None:
    code = CALL + "for n in (435, 470, 1000, 0x40000000 + 39): print(libc.syscall(n, 0, 0), ctypes.get_errno())"
    assert python(launcher, code) == "-1 38\n" * 4


@needs_x86
@pytest.mark.parametrize("flag", [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_makes_no_namespace(launcher: Launcher, flag: int) -> None:
    code = CALL + f"print(libc.syscall(56, {flag} | 17, 0, 0, 0, 0), ctypes.get_errno())"
    assert python(launcher, code) == "-1 1\n"


def test_processes_and_threads_work(launcher: Launcher) -> None:
    code = (
        "import subprocess, threading\n"
        "t = threading.Thread(target=lambda: print('thread', flush=True)); t.start(); t.join()\n"
        "print(subprocess.run(['echo', 'process'], capture_output=True, text=True).stdout)"
    )
    assert python(launcher, code) == "thread\nprocess\n\n"


def test_the_i386_entry_ends_the_process(launcher: Launcher, tmp_path: Path) -> None:
    program = tmp_path / "i386"
    program.write_bytes(elf_that_calls_int_80())
    program.chmod(0o755)
    if platform.machine() != "x86_64" or subprocess.run([program], check=False).returncode != 20 % 256:
        pytest.skip("this machine has no i386 entry")
    record = launcher.run(str(program), extra=[("ro", str(program))]).record
    assert (record["outcome"], record["signal"]) == ("signaled", "31")


def elf_that_calls_int_80() -> bytes:
    """A 64-bit program that exits with 20 by the 32-bit way: mov eax, 1; mov ebx, 20; int 0x80."""
    code = bytes.fromhex("b801000000bb14000000cd80")
    header = bytes.fromhex("7f454c4602010100" + "00" * 8 + "02003e0001000000")
    numbers = [0x400078, 64, 0]
    rest = b"".join(n.to_bytes(8, "little") for n in numbers) + bytes.fromhex("00000000400038000100000000000000")
    segment = bytes.fromhex("0100000005000000") + b"".join(
        n.to_bytes(8, "little") for n in (0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
    )
    return header + rest + segment + code


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ("AF_UNIX, SOCK_STREAM", True),
        ("AF_INET, SOCK_STREAM", True),
        ("AF_INET6, SOCK_DGRAM", True),
        ("AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK", True),
        ("AF_NETLINK, SOCK_RAW, 0", True),
        ("AF_NETLINK, SOCK_RAW, 12", False),
        ("AF_NETLINK, SOCK_RAW, 16", False),
        ("AF_INET, SOCK_RAW, 1", False),
        ("AF_INET, SOCK_RAW | SOCK_CLOEXEC, 1", False),
        ("AF_PACKET, SOCK_DGRAM", False),
        ("AF_VSOCK, SOCK_STREAM", False),
        ("AF_ALG, SOCK_SEQPACKET", False),
        ("AF_CAN, SOCK_RAW", False),
    ],
)
def test_sockets_are_for_ordinary_traffic(launcher: Launcher, arguments: str, allowed: bool) -> None:
    code = f"from socket import *\ntry: socket({arguments}); print('open')\nexcept PermissionError: print('refused')"
    assert python(launcher, code) == ("open\n" if allowed else "refused\n")


@pytest.mark.parametrize(
    ("number", "answer"), [("0x5412", "1"), ("0x100005412", "1"), ("0x541c", "1"), ("0x5413", "25")]
)
def test_no_terminal_is_typed_into(launcher: Launcher, number: str, answer: str) -> None:
    ioctl = 16 if platform.machine() == "x86_64" else 29
    code = CALL + f"libc.syscall({ioctl}, 1, ctypes.c_ulong({number}), 0); print(ctypes.get_errno())"
    assert python(launcher, code) == f"{answer}\n"


def test_the_job_has_terminals_of_its_own(launcher: Launcher) -> None:
    code = (
        "import os, pty\n"
        "master, slave = pty.openpty()\n"
        "os.write(slave, b'x')\n"
        "print(os.ttyname(slave), os.read(master, 1))"
    )
    assert python(launcher, code) == "/dev/pts/0 b'x'\n"


@pytest.mark.parametrize("propagation", ["private", "shared"])
def test_it_works_in_a_chroot(launcher: Launcher, tmp_path: Path, propagation: str) -> None:
    root, job = tmp_path / "root", launcher.make_directory()
    root.mkdir()
    shim = launcher.start(
        encode(job_entries("ls", "-A", "/tmp")),
        directory=job,
        through=[
            *("unshare", "--mount", "--propagation", propagation, "sh", "-ec"),
            'mount --rbind / "$0"; exec 4<"$0$1"; exec chroot "$0" "$2" 7',
            *(str(root), str(job), str(launcher.binary)),
        ],
    )
    shim.started()
    assert shim.wait()["code"] == "0"
    assert shim.log == b""


def test_no_sharing_with_the_host_is_left(launcher: Launcher) -> None:
    """All six namespaces are other ones than the host's; the network is the host's."""
    names = ["user", "pid", "mnt", "uts", "ipc", "cgroup", "net"]
    inside = output(launcher, "readlink", *(f"/proc/self/ns/{name}" for name in names)).split()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert [one == other for one, other in zip(inside, outside, strict=True)] == [False] * 6 + [True]


def test_message_queues_work(launcher: Launcher) -> None:
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "queue = libc.mq_open(b'/q', os.O_RDWR | os.O_CREAT, 0o600, None)\n"
        "buffer = ctypes.create_string_buffer(8192)\n"
        "print(libc.mq_send(queue, b'hello', 5, 0), libc.mq_receive(queue, buffer, 8192, None), buffer.value)\n"
        "print(os.listdir('/dev/mqueue'))"
    )
    assert python(launcher, code) == "0 5 b'hello'\n['q']\n"

"""Reading and changing the host's files, the server's and other jobs'."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import struct

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Absent, Context, attempt, preparing, reached, try_each

FITHAW = 0xC0045878
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IMMUTABLE_FL = 0x10


def list_foreign(path: str, context: Context) -> str:
    """Find entries that are not there because the configuration shows something below them."""
    shown = context["shown"]
    names = [name for name in os.listdir(path) if not any((s + "/").startswith(f"{path}/{name}/") for s in shown)]
    if not names:
        raise Absent(f"{path} is empty")
    return f"{path} has {len(names)} entries"


@attempt("read the password hashes", "absent")
def shadow(context: Context) -> str:
    return try_each(["/etc/shadow"])


@attempt("read the groups' password hashes", "absent")
def gshadow(context: Context) -> str:
    return try_each(["/etc/gshadow"])


@attempt("read the backups of the hashes", "absent")
def shadow_backups(context: Context) -> str:
    return try_each(["/etc/shadow-", "/etc/gshadow-"])


@attempt("read the ssh server's keys", "absent")
def ssh_keys(context: Context) -> str:
    return try_each(glob.glob("/etc/ssh/ssh_host_*_key"))


@attempt("read private TLS keys", "absent")
def tls_keys(context: Context) -> str:
    return try_each(glob.glob("/etc/ssl/private/*"))


@attempt("read sudo's rules", "absent")
def sudoers(context: Context) -> str:
    return try_each(["/etc/sudoers", *glob.glob("/etc/sudoers.d/*")])


@attempt("read the machine's id", "absent")
def machine_id(context: Context) -> str:
    return try_each(["/etc/machine-id", "/var/lib/dbus/machine-id"])


@attempt("list root's home", "absent")
def root_home(context: Context) -> str:
    return try_each(["/root"], lambda path: list_foreign(path, context))


@attempt("list the users' homes", "absent")
def homes(context: Context) -> str:
    return try_each(["/home"], lambda path: list_foreign(path, context))


@attempt("list /var", "absent")
def var(context: Context) -> str:
    return try_each(["/var"], lambda path: list_foreign(path, context))


@attempt("list /run, where services have their sockets", "absent")
def run(context: Context) -> str:
    return try_each(["/run"], lambda path: list_foreign(path, context))


@attempt("list /boot, /mnt, /media and /srv", "absent")
def other_trees(context: Context) -> str:
    return try_each(["/boot", "/mnt", "/media", "/srv"], lambda path: list_foreign(path, context))


@attempt("read the server's database", "absent")
def database(context: Context) -> str:
    return try_each([context["server"]["state"] + "/joblet.db"])


@attempt("read the server's keys", "absent")
def server_keys(context: Context) -> str:
    return try_each(context["server"]["keys"])


@attempt("read the server's configuration", "absent")
def server_config(context: Context) -> str:
    return try_each([context["server"]["config"]])


@attempt("read the host's /tmp", "absent")
def host_tmp(context: Context) -> str:
    return try_each([context["host"]["tmp_file"]])


@attempt("read the host's /var/tmp", "absent")
def host_var_tmp(context: Context) -> str:
    return try_each([context["host"]["var_tmp_file"]])


@attempt("read the host's shared memory files", "absent")
def host_shm(context: Context) -> str:
    return try_each([context["host"]["shm_file"]])


@attempt("read another job's output", "absent")
def other_log(context: Context) -> str:
    return try_each([context["job"]["directory"] + "/log"])


@attempt("read another job's work directory", "absent")
def other_work(context: Context) -> str:
    return try_each(
        [context["job"]["directory"] + "/work/" + context["job"]["name"], "/work/" + context["job"]["name"]]
    )


@attempt("read another job's /tmp", "absent")
def other_tmp(context: Context) -> str:
    return try_each(["{0[root]}/tmp/{0[name]}".format(context["job"]), "/tmp/" + context["job"]["name"]])


@attempt("read another job's shared memory files", "absent")
def other_shm(context: Context) -> str:
    return try_each(["{0[root]}/dev/shm/{0[name]}".format(context["job"]), "/dev/shm/" + context["job"]["name"]])


@attempt("put a link in the place of another job's log", "absent")
def swap_log(context: Context) -> str:
    def swap(log: str) -> str:
        os.rename(log, log + ".kept")
        try:
            os.symlink("/etc/passwd", log)
            os.unlink(log)
        finally:
            os.rename(log + ".kept", log)
        return "the log was replaced, and put back"

    return try_each([context["job"]["directory"] + "/log"], swap)


@attempt("forge a job's exit record", "absent")
def forge_record(context: Context) -> str:
    def forge(path: str) -> str:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
        return f"made {path}, and removed it"

    return try_each([context["job"]["directory"] + "/exit.forged"], forge)


@attempt("put a link in the place of the work directory", "EROFS")
def swap_work(context: Context) -> str:
    here = os.getcwd()
    os.rename(here, here + ".kept")
    os.rename(here + ".kept", here)
    return "the work directory was renamed, and named back"


@attempt("climb above the root directory", "ENOENT")
def climb(context: Context) -> str:
    place = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(64):
        place = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    os.stat(context["host"]["tmp_file"].lstrip("/"), dir_fd=place)
    return "above the work directory is the host's root"


@attempt("find a victim's file anywhere", "absent")
def find_any(context: Context) -> str:
    """By its name, in all that is there but the big trees, in which no victim is."""
    for folder, folders, names in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ("usr", "proc", "sys")]
        for name in names:
            if name.startswith(context["marker"]):
                return f"found {folder}/{name}"
    raise Absent("no file has the victims' name")


@attempt("make a directory among the system's", "EROFS")
def make_system_directory(context: Context) -> str:
    def make(parent: str) -> str:
        path = parent + "/" + context["marker"] + ".made"
        os.mkdir(path)
        os.rmdir(path)
        return f"made {path}, and removed it"

    return try_each(["", "/usr", "/etc", "/bin"], make)


@attempt("change the mode of a system file", "EROFS")
def change_mode(context: Context) -> str:
    os.chmod("/etc/passwd", os.stat("/etc/passwd").st_mode & 0o7777)
    return "set the mode that it had"


@attempt("remove an extended attribute of a system file", "EROFS")
def remove_attribute(context: Context) -> str:
    return reached([errno.ENODATA], lambda: os.removexattr("/etc/passwd", "trusted.joblet"))


@attempt("open a system file for writing", "EACCES")
def write_system_file(context: Context) -> str:
    os.close(os.open("/etc/passwd", os.O_WRONLY))
    return "opened /etc/passwd for writing"


@attempt("hard-link a system file into the work directory", "EXDEV")
def hard_link(context: Context) -> str:
    os.link("/usr/bin/env", context["marker"] + ".link", follow_symlinks=True)
    os.unlink(context["marker"] + ".link")
    return "made a link to /usr/bin/env, and removed it"


@attempt("name a file by its handle", "EPERM")
def name_handle(context: Context) -> str:
    handle_of("/usr/bin/env")
    return "the kernel gave the handle"


@attempt("open any file by its handle", "EPERM")
def open_handle(context: Context) -> str:
    """Shocker: the root of the disk, inode 2, from the mount of a file that is shown."""
    place = os.open("/usr/bin/env", os.O_RDONLY)
    handle = ctypes.create_string_buffer(struct.pack("IiII", 8, 1, 2, 0))
    return reached([errno.ESTALE], lambda: call("open_by_handle_at", place, handle, os.O_RDONLY))


def handle_of(path: str) -> None:
    handle = ctypes.create_string_buffer(struct.pack("Ii128s", 128, 0, b""))
    mount = ctypes.create_string_buffer(4)
    call("name_to_handle_at", -100, path.encode(), handle, mount, 0)


@attempt("hold up the host's writers by a lease", "EACCES")
def lease(context: Context) -> str:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return "took a lease on /etc/passwd, and gave it back"


@attempt("freeze the file system of the work directory", "EPERM")
def freeze(context: Context) -> str:
    """By FITHAW, which needs the same and does nothing to what is not frozen."""
    fd = os.open(".", os.O_RDONLY)
    return reached([errno.EINVAL], lambda: fcntl.ioctl(fd, FITHAW, 0))


@attempt("make a file that cannot be removed", "EPERM")
def immutable(context: Context) -> str:
    path = context["marker"] + ".immutable"
    with preparing("make a file"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        flags = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))[0]
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_IMMUTABLE_FL))
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags))
    finally:
        os.unlink(path)
    return "set the flag, and took it back"

#include "namespaces.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "die.h"
#include "kernel.h"

pid_t clone_init(int group, int *pidfd)
{
    struct kernel_clone_args args = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_PIDFD,
        .pidfd = (uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    if (group >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)group;
    }
    pid_t pid = kernel_clone3(&args);
    if (pid < 0)
        die(STAGE_NAMESPACE, "clone3");
    return pid;
}

void name_host(const char *hostname)
{
    if (unshare(CLONE_NEWCGROUP) < 0)
        die(STAGE_NAMESPACE, "unshare CLONE_NEWCGROUP");
    if (sethostname(hostname, strlen(hostname)) < 0)
        die(STAGE_NAMESPACE, "sethostname");
}

void enter_user_namespace(uint32_t owner)
{
    /* Before unshare: afterwards setgroups(2) needs a mapped id for every group. */
    if (setgroups(0, NULL) < 0)
        die(STAGE_PRIVILEGES, "setgroups");
    /* With all capabilities kept, for hosts where an unprivileged user may make no namespace. The new one starts without
     * this: user_namespaces(7). */
    if (prctl(PR_SET_SECUREBITS, SECURE_NO_SETUID_FIXUP, 0, 0, 0) < 0)
        die(STAGE_PRIVILEGES, "prctl PR_SET_SECUREBITS");
    if (syscall(SYS_setresgid, owner, owner, owner) < 0 || syscall(SYS_setresuid, owner, owner, owner) < 0)
        die(STAGE_PRIVILEGES, "setresuid");
    if (unshare(CLONE_NEWUSER) < 0)
        die(STAGE_NAMESPACE, "unshare CLONE_NEWUSER");
}

/* The number cannot belong to another process: it is our child and we have not waited for it. */
static int open_process(pid_t pid)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    int process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (process < 0)
        die(STAGE_NAMESPACE, "open %s", path);
    return process;
}

static void write_map(int process, const char *name, uint32_t inside, uint32_t outside, uint32_t count)
{
    char map[48];
    int length = snprintf(map, sizeof map, "%u %u %u\n", inside, outside, count);
    int fd = openat(process, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        die(STAGE_NAMESPACE, "open %s", name);
    if (write(fd, map, (size_t)length) < 0)
        die(STAGE_NAMESPACE, "write %s", name);
    close(fd);
}

void map_ids(pid_t pid, uint32_t base, uint32_t count)
{
    int process = open_process(pid);
    write_map(process, "uid_map", 0, base, count);
    write_map(process, "gid_map", 0, base, count);
    close(process);
}

/* A process that does nothing, in a user namespace of its own, until it is killed or its parent dies. */
static pid_t clone_idle(void)
{
    pid_t parent = getpid();
    struct kernel_clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    pid_t pid = kernel_clone3(&args);
    if (pid < 0)
        die(STAGE_NAMESPACE, "clone3 CLONE_NEWUSER");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    while (getppid() == parent)
        pause();
    _exit(0);
}

int make_idmap(const char *path, uint32_t base, bool secluded)
{
    struct stat what;
    struct statvfs mount;
    struct kernel_open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    int place = kernel_openat2(AT_FDCWD, path, &how);
    if (place < 0 || fstat(place, &what) < 0 || fstatvfs(place, &mount) < 0)
        die(STAGE_ROOTFS, "open %s", path);
    close(place);
    errno = EPERM;
    if (what.st_uid == 0)
        die(STAGE_ROOTFS, "root owns %s", path);
    if (!secluded && !(mount.f_flag & ST_NOSUID))
        die(STAGE_ROOTFS, "not mounted nosuid: %s", path);

    pid_t idle = clone_idle();
    int process = open_process(idle);
    write_map(process, "uid_map", what.st_uid, base, 1);
    write_map(process, "gid_map", what.st_gid, base, 1);
    int namespace = openat(process, "ns/user", O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        die(STAGE_NAMESPACE, "open ns/user");
    close(process);
    kill(idle, SIGKILL); /* our child, not waited for yet */
    RETRY(waitpid(idle, NULL, 0));
    return namespace;
}

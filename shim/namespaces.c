#include "namespaces.h"

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

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

void enter_user_namespace(void)
{
    /* Before unshare: afterwards setgroups(2) needs a mapped id for every group. */
    if (setgroups(0, NULL) < 0)
        die(STAGE_PRIVILEGES, "setgroups");
    if (unshare(CLONE_NEWUSER) < 0)
        die(STAGE_NAMESPACE, "unshare CLONE_NEWUSER");
}

static void write_map(int process, const char *name, const char *map)
{
    int fd = openat(process, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        die(STAGE_NAMESPACE, "open %s", name);
    if (write(fd, map, strlen(map)) < 0)
        die(STAGE_NAMESPACE, "write %s", name);
    close(fd);
}

/* The number cannot belong to another process: it is our child and we have not waited for it. */
void map_ids(pid_t pid, uint32_t base, uint32_t count)
{
    char path[32], map[48];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    snprintf(map, sizeof map, "0 %u %u\n", base, count);
    int process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (process < 0)
        die(STAGE_NAMESPACE, "open %s", path);
    write_map(process, "uid_map", map);
    write_map(process, "gid_map", map);
    close(process);
}

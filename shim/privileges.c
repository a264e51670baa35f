#include "privileges.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "die.h"
#include "kernel.h"

/* From <linux/securebits.h> and <linux/capability.h>; each of the former with its lock. */
#define SECURE_NOROOT (1 << 0 | 1 << 1)
#define SECURE_NO_SETUID_FIXUP_LOCKED (SECURE_NO_SETUID_FIXUP | 1 << 3)
#define SECURE_KEEP_CAPS_LOCKED (1 << 5)
#define SECURE_NO_CAP_AMBIENT_RAISE (1 << 6 | 1 << 7)
#define CAPABILITY_VERSION_3 0x20080522

static void check(long result, const char *call)
{
    if (result < 0)
        die(STAGE_PRIVILEGES, "%s", call);
}

/* By system call: the library's wrappers are there to tell other threads. */
static void become_root_of_the_job(void)
{
    check(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
    check(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
}

static void drop_capabilities(void)
{
    /* While there is CAP_SETPCAP to do it with. Root gains nothing by execve then. */
    check(prctl(PR_SET_SECUREBITS,
                SECURE_NOROOT | SECURE_NO_SETUID_FIXUP_LOCKED | SECURE_KEEP_CAPS_LOCKED | SECURE_NO_CAP_AMBIENT_RAISE, 0, 0,
                0),
          "prctl PR_SET_SECUREBITS");

    /* Up to the last that the kernel knows, which may be newer than this list: EINVAL is behind it. */
    unsigned long capability = 0;
    while (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
        capability++;
    if (errno != EINVAL || capability == 0)
        die(STAGE_PRIVILEGES, "prctl PR_CAPBSET_DROP %lu", capability);

    /* Ambient ones go with the permitted ones. */
    struct kernel_cap_header header = {.version = CAPABILITY_VERSION_3};
    struct kernel_cap_data none[2] = {{0}};
    check(syscall(SYS_capset, &header, none), "capset");
}

/* Of a core 1, not 0: a handler that core_pattern pipes to is started for 0 all the same, as root of the host and fed by
 * the job; only 1, the kernel's own mark for such handlers, stops it: core(5), do_coredump(). The filter keeps it so. */
static void limit_resources(uint32_t open_files)
{
    check(setrlimit(RLIMIT_CORE, &(struct rlimit){1, 1}), "setrlimit RLIMIT_CORE");
    check(setrlimit(RLIMIT_NOFILE, &(struct rlimit){open_files, open_files}), "setrlimit RLIMIT_NOFILE");
    check(setrlimit(RLIMIT_RTPRIO, &(struct rlimit){0, 0}), "setrlimit RLIMIT_RTPRIO");
    check(setrlimit(RLIMIT_NICE, &(struct rlimit){0, 0}), "setrlimit RLIMIT_NICE");
    umask(022);
}

void drop_privileges(uint32_t open_files)
{
    limit_resources(open_files); /* while a limit that the server itself has may still be raised: setrlimit(2) */
    become_root_of_the_job();
    drop_capabilities();
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS");
    /* The init has the job's user id, and the spec in its memory; execve makes the command dumpable again: ptrace(2). */
    check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl PR_SET_DUMPABLE");
}

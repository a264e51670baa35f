#include "privileges.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "die.h"
#include "kernel.h"

/* From <linux/securebits.h> and <linux/capability.h>. */
#define SECURE_NOROOT (1 << 0 | 1 << 1)
#define SECURE_NO_SETUID_FIXUP (1 << 2 | 1 << 3)
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
                SECURE_NOROOT | SECURE_NO_SETUID_FIXUP | SECURE_KEEP_CAPS_LOCKED | SECURE_NO_CAP_AMBIENT_RAISE, 0, 0,
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

static void limit_resources(void)
{
    check(setrlimit(RLIMIT_CORE, &(struct rlimit){0}), "setrlimit RLIMIT_CORE");
    umask(022);
}

void drop_privileges(void)
{
    become_root_of_the_job();
    limit_resources();
    drop_capabilities();
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS");
    /* The init has the job's user id, and the spec in its memory; execve makes the command dumpable again: ptrace(2). */
    check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl PR_SET_DUMPABLE");
}

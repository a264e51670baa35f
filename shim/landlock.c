#include "landlock.h"

#include <errno.h>

#include "die.h"
#include "kernel.h"

/* From <linux/landlock.h>. */
enum {
    WRITE_FILE = 1 << 1,
    REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5,
    MAKE_CHAR = 1 << 6,
    MAKE_DIR = 1 << 7,
    MAKE_REG = 1 << 8,
    MAKE_SOCK = 1 << 9,
    MAKE_FIFO = 1 << 10,
    MAKE_BLOCK = 1 << 11,
    MAKE_SYM = 1 << 12,
    REFER = 1 << 13,
    TRUNCATE = 1 << 14,
    IOCTL_DEV = 1 << 15,
};
enum { SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0, SCOPE_SIGNAL = 1 << 1 };
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };
enum { ABI_REFER = 2, ABI_TRUNCATE = 3, ABI_IOCTL_DEV = 5, ABI_SCOPES = 6 };

/* Not among them: MAKE_CHAR and MAKE_BLOCK, which no place allows. */
#define CHANGES                                                                                                         \
    (WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE)

/* Reading is not handled, so that it costs nothing: what may be read is what is mounted. */
static uint64_t handled(int abi)
{
    uint64_t rights = CHANGES | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV;
    if (abi < ABI_TRUNCATE)
        rights &= ~(uint64_t)TRUNCATE;
    if (abi < ABI_IOCTL_DEV)
        rights &= ~(uint64_t)IOCTL_DEV;
    return rights;
}

static void allow(int ruleset, const char *path, uint64_t rights)
{
    struct kernel_landlock_path rule = {.allowed_access = rights, .parent_fd = open(path, O_PATH | O_CLOEXEC)};
    if (rule.parent_fd < 0)
        die(STAGE_PRIVILEGES, "open %s", path);
    if (kernel_landlock_add_rule(ruleset, RULE_PATH_BENEATH, &rule) < 0)
        die(STAGE_PRIVILEGES, "landlock_add_rule %s", path);
    close(rule.parent_fd);
}

/* A file has fewer rights than a directory, and the kernel refuses those that it cannot have. */
static void allow_writable(int ruleset, const char *path, uint64_t rights)
{
    int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 && errno != ENOTDIR)
        die(STAGE_PRIVILEGES, "open %s", path);
    allow(ruleset, path, dir < 0 ? rights & (WRITE_FILE | TRUNCATE) : rights & CHANGES);
    if (dir >= 0)
        close(dir);
}

void confine_to_writable(const struct spec *spec)
{
    int abi = kernel_landlock_create_ruleset(NULL, 0, CREATE_RULESET_VERSION);
    /* The first version forbids to rename between directories, anywhere: too much for a job. */
    if (abi < ABI_REFER)
        return;
    uint64_t rights = handled(abi);
    struct kernel_landlock_ruleset attributes = {.handled_access_fs = rights};
    size_t size = offsetof(struct kernel_landlock_ruleset, handled_access_net);
    if (abi >= ABI_SCOPES) {
        attributes.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        size = sizeof attributes;
    }
    int ruleset = kernel_landlock_create_ruleset(&attributes, size, 0);
    if (ruleset < 0)
        die(STAGE_PRIVILEGES, "landlock_create_ruleset");

    allow(ruleset, "/dev", rights & (WRITE_FILE | TRUNCATE | IOCTL_DEV));
    allow(ruleset, "/proc", rights & (WRITE_FILE | TRUNCATE));
    allow_writable(ruleset, "/dev/shm", rights);
    if (access("/dev/mqueue", F_OK) == 0)
        allow_writable(ruleset, "/dev/mqueue", rights);
    allow_writable(ruleset, "/tmp", rights);
    allow_writable(ruleset, spec->work, rights);
    for (size_t i = 0; i < spec->rw.count; i++)
        allow_writable(ruleset, spec->rw.at[i], rights);
    if (spec->shared)
        allow_writable(ruleset, SHARED_PLACE, rights);

    if (kernel_landlock_restrict_self(ruleset) < 0)
        die(STAGE_PRIVILEGES, "landlock_restrict_self");
    close(ruleset);
}

/* System calls and constants that the C library's headers may lack. musl is built against without the kernel's
 * headers, so nothing here includes <linux/...>; structures carry names of their own, so that a newer library that
 * does declare them is no conflict. System calls from 424 on have the same number on every architecture. */
#ifndef JOBLET_KERNEL_H
#define JOBLET_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The shim has no signal handlers, but a stop and SIGCONT interrupts some calls all the same: signal(7). */
#define RETRY(call)                                     \
    (__extension__({                                    \
        long result_;                                   \
        do                                              \
            result_ = (long)(call);                     \
        while (result_ < 0 && errno == EINTR);          \
        result_;                                        \
    }))

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif
#ifndef MOVE_MOUNT_T_EMPTY_PATH
#define MOVE_MOUNT_T_EMPTY_PATH 0x00000040
#endif
#ifndef MOUNT_ATTR_RDONLY
#define MOUNT_ATTR_RDONLY 0x00000001
#define MOUNT_ATTR_NOSUID 0x00000002
#define MOUNT_ATTR_NODEV 0x00000004
#define MOUNT_ATTR_NOEXEC 0x00000008
#endif
#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC 0x00000001
#endif
#ifndef FSMOUNT_CLOEXEC
#define FSMOUNT_CLOEXEC 0x00000001
#endif
#ifndef RESOLVE_IN_ROOT
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_IN_ROOT 0x10
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef RESOLVE_NO_SYMLINKS
#define RESOLVE_NO_SYMLINKS 0x04
#endif
#ifndef RESOLVE_BENEATH
#define RESOLVE_BENEATH 0x08
#endif
#ifndef LOOP_CTL_GET_FREE
#define LOOP_CTL_GET_FREE 0x4C82
#define LO_FLAGS_AUTOCLEAR 4
#define LO_FLAGS_DIRECT_IO 16
#endif
#ifndef LOOP_CONFIGURE
#define LOOP_CONFIGURE 0x4C0A
#endif
#define SECURE_NO_SETUID_FIXUP (1 << 2) /* <linux/securebits.h> */
enum { JOBLET_FSCONFIG_SET_FLAG = 0, JOBLET_FSCONFIG_SET_STRING = 1, JOBLET_FSCONFIG_CMD_CREATE = 6 };

struct kernel_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

struct kernel_mount_attr {
    uint64_t attr_set, attr_clr, propagation, userns_fd;
};

struct kernel_open_how {
    uint64_t flags, mode, resolve;
};

/* struct loop_config with its struct loop_info64 */
struct kernel_loop_config {
    uint32_t fd, block_size;
    struct {
        uint64_t lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit;
        uint32_t lo_number, lo_encrypt_type, lo_encrypt_key_size, lo_flags;
        uint8_t lo_file_name[64], lo_crypt_name[64], lo_encrypt_key[32];
        uint64_t lo_init[2];
    } info;
    uint64_t reserved[8];
};

struct kernel_landlock_ruleset {
    uint64_t handled_access_fs, handled_access_net, scoped;
};

struct kernel_landlock_path {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

struct kernel_cap_header {
    uint32_t version;
    int pid;
};

struct kernel_cap_data {
    uint32_t effective, permitted, inheritable;
};

static inline int kernel_pidfd_send_signal(int pidfd, int sig)
{
    return (int)syscall(424, pidfd, sig, NULL, 0);
}

static inline int kernel_open_tree(int dir, const char *path, unsigned flags)
{
    return (int)syscall(428, dir, path, flags);
}

static inline int kernel_move_mount(int from, int to_dir, const char *to, unsigned flags)
{
    return (int)syscall(429, from, "", to_dir, to, flags | MOVE_MOUNT_F_EMPTY_PATH);
}

static inline int kernel_fsopen(const char *type)
{
    return (int)syscall(430, type, FSOPEN_CLOEXEC);
}

static inline int kernel_fsconfig(int fs, unsigned command, const char *key, const char *value)
{
    return (int)syscall(431, fs, command, key, value, 0);
}

static inline int kernel_fsmount(int fs, unsigned attributes)
{
    return (int)syscall(432, fs, FSMOUNT_CLOEXEC, attributes);
}

static inline int kernel_pidfd_open(pid_t pid)
{
    return (int)syscall(434, pid, 0);
}

static inline pid_t kernel_clone3(struct kernel_clone_args *args)
{
    return (pid_t)syscall(435, args, sizeof *args);
}

static inline int kernel_close_range(unsigned first)
{
    return (int)syscall(436, first, ~0U, 0);
}

static inline int kernel_openat2(int dir, const char *path, struct kernel_open_how *how)
{
    return (int)syscall(437, dir, path, how, sizeof *how);
}

static inline int kernel_mount_setattr(int dir, unsigned flags, uint64_t set)
{
    struct kernel_mount_attr attributes = {.attr_set = set};
    return (int)syscall(442, dir, "", flags | AT_EMPTY_PATH, &attributes, sizeof attributes);
}

static inline int kernel_mount_idmap(int dir, int user_namespace)
{
    struct kernel_mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_namespace};
    return (int)syscall(442, dir, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

static inline int kernel_landlock_create_ruleset(const struct kernel_landlock_ruleset *attributes, size_t size,
                                                 unsigned flags)
{
    return (int)syscall(444, attributes, size, flags);
}

static inline int kernel_landlock_add_rule(int ruleset, unsigned type, const void *rule)
{
    return (int)syscall(445, ruleset, type, rule, 0);
}

static inline int kernel_landlock_restrict_self(int ruleset)
{
    return (int)syscall(446, ruleset, 0);
}

#endif

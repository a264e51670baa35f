#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "die.h"
#include "kernel.h"
#include "privileges.h"

/* The filter is a binary search over ranges of system call numbers: the kernel runs it for every number once, to learn
 * which are always allowed, and at every call of the others; a list of 100 comparisons costs a launch six times as much. */

/* From <linux/filter.h> and <linux/seccomp.h>. */
struct instruction {
    uint16_t code;
    uint8_t jump_true, jump_false;
    uint32_t value;
};

struct program {
    unsigned short length;
    struct instruction *instructions;
};

enum { LOAD = 0x20, JUMP_EQUAL = 0x15, JUMP_AT_LEAST = 0x35, JUMP_ANY = 0x45, AND = 0x54, RETURN = 0x06 };
enum { OFFSET_NUMBER = 0, OFFSET_ARCHITECTURE = 4, OFFSET_ARGUMENTS = 16 };
enum { SET_MODE_FILTER = 1, FLAG_SPEC_ALLOW = 1 << 2 };

#define ALLOW 0x7fff0000U
#define KILL_PROCESS 0x80000000U
#define FAIL(error) (0x00050000U | (error))

/* Only pointers have a high half that counts: the rest is int for the kernel, and clone's namespaces are low bits. */
#define ARGUMENT_LOW(n) (OFFSET_ARGUMENTS + 8 * (n))
#define ARGUMENT_HIGH(n) (ARGUMENT_LOW(n) + 4)

enum verdict { ALLOWED, DENIED, ABSENT, PERSONALITY, IOCTL, SOCKET, SOCKETPAIR, CLONE, MMAP, MEMFD, SETRLIMIT, PRLIMIT };

struct range {
    uint32_t first, last;
    enum verdict verdict;
};

/* Left to a job, where others take it away: the memory policy of its own pages (mbind and its like: numerical libraries
 * call it, the cpuset binds it), landlock_* and seccomp (they only take away), pkey_* and process_mrelease. Taken away
 * although it looks harmless: migrate_pages and move_pages, which make every processor empty its lists of pages; ustat,
 * which tells the free space of any file system by its device's number; sysfs, uselib and remap_file_pages, which only
 * history calls. And io_setup: what there is of it (fs.aio-max-nr) is one store for the whole host, that any one job could
 * empty; databases do without it on kernels that lack it. */

/* The same numbers everywhere. What came after the newest call that this page knows does not exist for a job: a
 * kernel may be younger than its judgement here. The x32 entry points are such numbers too (bit 30). */
#define COMMON_RANGES                                                           \
    {425, 427, DENIED},     /* io_uring_setup, _enter, _register */             \
    {428, 433, DENIED},     /* open_tree, move_mount, fsopen, fsconfig, fsmount, fspick */ \
    {435, 435, ABSENT},     /* clone3: flags behind a pointer; libraries fall back to clone */ \
    {438, 438, DENIED},     /* pidfd_getfd */                                   \
    {440, 440, DENIED},     /* process_madvise */                               \
    {442, 443, DENIED},     /* mount_setattr, quotactl_fd */                    \
    {447, 447, ABSENT},     /* memfd_secret: splits the kernel's map of memory for all; many kernels have it off */ \
    {467, 467, DENIED},     /* open_tree_attr */                                \
    {470, UINT32_MAX, ABSENT}

/* The architecture as the kernel names it, <linux/audit.h>. The tests choose it, to see the filters of both. */
#if !defined(JOBLET_SECCOMP_ARCH) && defined(__x86_64__)
#define JOBLET_SECCOMP_ARCH 0xc000003e
#elif !defined(JOBLET_SECCOMP_ARCH) && defined(__aarch64__)
#define JOBLET_SECCOMP_ARCH 0xc00000b7
#elif !defined(JOBLET_SECCOMP_ARCH)
#define JOBLET_SECCOMP_ARCH 0
#endif

#if JOBLET_SECCOMP_ARCH == 0xc000003e
static const struct range ranges[] = {
    {9, 9, MMAP},
    {16, 16, IOCTL},
    {41, 41, SOCKET},
    {53, 53, SOCKETPAIR},
    {56, 56, CLONE},
    {101, 101, DENIED}, /* ptrace */
    {103, 103, DENIED}, /* syslog */
    {134, 134, DENIED}, /* uselib */
    {135, 135, PERSONALITY},
    {136, 136, DENIED}, /* ustat */
    {139, 139, DENIED}, /* sysfs */
    {153, 156, DENIED}, /* vhangup, modify_ldt, pivot_root, _sysctl */
    {159, 159, DENIED}, /* adjtimex */
    {160, 160, SETRLIMIT},
    {161, 161, DENIED}, /* chroot */
    {163, 180, DENIED}, /* acct, settimeofday, mount, umount2, swapon, swapoff, reboot, sethostname, setdomainname, iopl,
                           ioperm, create_module, init_module, delete_module, get_kernel_syms, query_module, quotactl,
                           nfsservctl */
    {206, 206, ABSENT}, /* io_setup */
    {212, 212, DENIED}, /* lookup_dcookie */
    {216, 216, DENIED}, /* remap_file_pages */
    {227, 227, DENIED}, /* clock_settime */
    {246, 246, DENIED}, /* kexec_load */
    {248, 250, DENIED}, /* add_key, request_key, keyctl */
    {256, 256, DENIED}, /* migrate_pages */
    {272, 272, DENIED}, /* unshare */
    {279, 279, DENIED}, /* move_pages */
    {298, 298, DENIED}, /* perf_event_open */
    {300, 301, DENIED}, /* fanotify_init, fanotify_mark */
    {302, 302, PRLIMIT},
    {303, 305, DENIED}, /* name_to_handle_at, open_by_handle_at, clock_adjtime */
    {308, 308, DENIED}, /* setns */
    {310, 313, DENIED}, /* process_vm_readv, process_vm_writev, kcmp, finit_module */
    {319, 319, MEMFD},
    {320, 321, DENIED}, /* kexec_file_load, bpf */
    {323, 323, DENIED}, /* userfaultfd */
    {337, 423, ABSENT}, /* not given out; uretprobe and uprobe before them are the kernel's calls of itself */
    COMMON_RANGES,
};
#elif JOBLET_SECCOMP_ARCH == 0xc00000b7
static const struct range ranges[] = {
    {0, 0, ABSENT},   /* io_setup */
    {18, 18, DENIED}, /* lookup_dcookie */
    {29, 29, IOCTL},
    {39, 42, DENIED}, /* umount2, mount, pivot_root, nfsservctl */
    {51, 51, DENIED}, /* chroot */
    {58, 58, DENIED}, /* vhangup */
    {60, 60, DENIED}, /* quotactl */
    {89, 89, DENIED}, /* acct */
    {92, 92, PERSONALITY},
    {97, 97, DENIED},   /* unshare */
    {104, 106, DENIED}, /* kexec_load, init_module, delete_module */
    {112, 112, DENIED}, /* clock_settime */
    {116, 117, DENIED}, /* syslog, ptrace */
    {142, 142, DENIED}, /* reboot */
    {161, 162, DENIED}, /* sethostname, setdomainname */
    {164, 164, SETRLIMIT},
    {170, 171, DENIED}, /* settimeofday, adjtimex */
    {198, 198, SOCKET},
    {199, 199, SOCKETPAIR},
    {217, 219, DENIED}, /* add_key, request_key, keyctl */
    {220, 220, CLONE},
    {222, 222, MMAP},
    {224, 225, DENIED}, /* swapon, swapoff */
    {234, 234, DENIED}, /* remap_file_pages */
    {238, 239, DENIED}, /* migrate_pages, move_pages */
    {241, 241, DENIED}, /* perf_event_open */
    {244, 259, ABSENT}, /* other architectures' own */
    {261, 261, PRLIMIT},
    {262, 266, DENIED}, /* fanotify_init, fanotify_mark, name_to_handle_at, open_by_handle_at, clock_adjtime */
    {268, 268, DENIED}, /* setns */
    {270, 273, DENIED}, /* process_vm_readv, process_vm_writev, kcmp, finit_module */
    {279, 279, MEMFD},
    {280, 280, DENIED}, /* bpf */
    {282, 282, DENIED}, /* userfaultfd */
    {294, 294, DENIED}, /* kexec_file_load */
    {295, 423, ABSENT}, /* not given out, or for 32 bits only */
    COMMON_RANGES,
};
#else
#error "no list of system calls for this architecture"
#endif

enum { RANGES = sizeof ranges / sizeof *ranges, PROGRAM_MAX = 512 };

/* Ranges and the gaps between them, as the first number of each. */
struct segment {
    uint32_t first;
    enum verdict verdict;
};

struct writer {
    struct instruction at[PROGRAM_MAX];
    size_t length;
};

static struct instruction *emit(struct writer *out, uint16_t code, uint32_t value, uint8_t jump_true, uint8_t jump_false)
{
    errno = E2BIG;
    if (out->length == PROGRAM_MAX)
        die(STAGE_PRIVILEGES, "seccomp filter");
    out->at[out->length] = (struct instruction){code, jump_true, jump_false, value};
    return &out->at[out->length++];
}

static void return_if_equal(struct writer *out, uint32_t value, uint32_t action)
{
    emit(out, JUMP_EQUAL, value, 0, 1);
    emit(out, RETURN, action, 0, 0);
}

/* UTS26 and the 32-bit name of the machine, and the question which it is. Not the ones that weaken address layout. */
static void write_personality(struct writer *out)
{
    static const uint32_t harmless[] = {0x0, 0x8, 0x20000, 0x20008, 0xffffffff};
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        return_if_equal(out, harmless[i], ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
}

/* Typing into a terminal that others read; line disciplines, by which the job's own terminal would run old drivers and
 * have modules loaded: ioctl_tty(2). */
static void write_ioctl(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(1), 0, 0);
    return_if_equal(out, TIOCSTI, FAIL(EPERM));
    return_if_equal(out, TIOCLINUX, FAIL(EPERM));
    return_if_equal(out, TIOCSETD, FAIL(EPERM));
    emit(out, RETURN, ALLOW, 0, 0);
}

static void write_clone(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    emit(out, JUMP_ANY,
         CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, 0, 1);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
    emit(out, RETURN, ALLOW, 0, 0);
}

/* Unix, TCP, UDP, ping, and NETLINK_ROUTE (0), which getaddrinfo(3) asks for addresses. The protocols by name: others,
 * like SCTP or L2TP, are modules that a mere socket loads. */
static void write_socket(struct writer *out)
{
    enum { TYPE_MASK = 0xf, MPTCP = 262 };
    static const uint32_t protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6, MPTCP};
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    return_if_equal(out, AF_UNIX, ALLOW);

    emit(out, JUMP_EQUAL, AF_NETLINK, 0, 4);
    emit(out, LOAD, ARGUMENT_LOW(2), 0, 0);
    return_if_equal(out, 0, ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);

    emit(out, JUMP_EQUAL, AF_INET, 2, 0);
    emit(out, JUMP_EQUAL, AF_INET6, 1, 0);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
    emit(out, LOAD, ARGUMENT_LOW(1), 0, 0);
    emit(out, AND, TYPE_MASK, 0, 0);
    emit(out, JUMP_EQUAL, SOCK_STREAM, 2, 0);
    emit(out, JUMP_EQUAL, SOCK_DGRAM, 1, 0);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
    emit(out, LOAD, ARGUMENT_LOW(2), 0, 0);
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        return_if_equal(out, protocols[i], ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
}

static void write_socketpair(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    return_if_equal(out, AF_UNIX, ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
}

/* RLIMIT_CORE stays 1, which keeps a crash from the program that core_pattern may name: core(5). 0 would not; but 0 is
 * what gpg(1), ssh-agent(1) and many a script ask for, and they go no further when it is refused. So they are told that
 * it is done: there are no core dumps. */
enum { DONE = 0 };

static void write_setrlimit(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    return_if_equal(out, RLIMIT_CORE, FAIL(DONE));
    emit(out, RETURN, ALLOW, 0, 0);
}

/* The same, but for those who only read: they pass no new limit. */
static void write_prlimit(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(1), 0, 0);
    emit(out, JUMP_EQUAL, RLIMIT_CORE, 1, 0);
    emit(out, RETURN, ALLOW, 0, 0);
    emit(out, LOAD, ARGUMENT_LOW(2), 0, 0);
    emit(out, JUMP_EQUAL, 0, 0, 3);
    emit(out, LOAD, ARGUMENT_HIGH(2), 0, 0);
    return_if_equal(out, 0, ALLOW);
    emit(out, RETURN, FAIL(DONE), 0, 0);
}

/* Huge pages of the host's own store (vm.nr_hugepages), which no memory limit counts. Programs take others then. */
static void write_huge(struct writer *out, size_t argument, uint32_t flag, uint32_t error)
{
    emit(out, LOAD, (uint32_t)ARGUMENT_LOW(argument), 0, 0);
    emit(out, JUMP_ANY, flag, 0, 1);
    emit(out, RETURN, FAIL(error), 0, 0);
    emit(out, RETURN, ALLOW, 0, 0);
}

static void write_verdict(struct writer *out, enum verdict verdict)
{
    switch (verdict) {
    case ALLOWED:
        emit(out, RETURN, ALLOW, 0, 0);
        break;
    case DENIED:
        emit(out, RETURN, FAIL(EPERM), 0, 0);
        break;
    case ABSENT:
        emit(out, RETURN, FAIL(ENOSYS), 0, 0);
        break;
    case PERSONALITY:
        write_personality(out);
        break;
    case IOCTL:
        write_ioctl(out);
        break;
    case SOCKET:
        write_socket(out);
        break;
    case SOCKETPAIR:
        write_socketpair(out);
        break;
    case MMAP:
        write_huge(out, 3, 0x40000 /* MAP_HUGETLB */, ENOMEM);
        break;
    case MEMFD:
        write_huge(out, 1, 0x4 /* MFD_HUGETLB */, EINVAL);
        break;
    case CLONE:
        write_clone(out);
        break;
    case SETRLIMIT:
        write_setrlimit(out);
        break;
    case PRLIMIT:
        write_prlimit(out);
        break;
    }
}

/* Half of the segments each time. Jumps only lead forward, over the lower half, and no further than 255. */
static void write_search(struct writer *out, const struct segment *segments, size_t count)
{
    if (count == 1) {
        write_verdict(out, segments->verdict);
        return;
    }
    size_t half = count / 2;
    struct instruction *jump = emit(out, JUMP_AT_LEAST, segments[half].first, 0, 0);
    write_search(out, segments, half);
    size_t distance = (size_t)(&out->at[out->length] - (jump + 1));
    errno = E2BIG;
    if (distance > UINT8_MAX)
        die(STAGE_PRIVILEGES, "seccomp filter");
    jump->jump_true = (uint8_t)distance;
    write_search(out, segments + half, count - half);
}

static size_t list_segments(struct segment segments[2 * RANGES + 1])
{
    size_t count = 0;
    uint32_t next = 0;
    for (size_t i = 0; i < RANGES; i++) {
        if (ranges[i].first > next)
            segments[count++] = (struct segment){next, ALLOWED};
        segments[count++] = (struct segment){ranges[i].first, ranges[i].verdict};
        next = ranges[i].last + 1;
    }
    return count; /* the last range reaches the last number */
}

static void write_filter(struct writer *out)
{
    struct segment segments[2 * RANGES + 1];
    emit(out, LOAD, OFFSET_ARCHITECTURE, 0, 0);
    emit(out, JUMP_EQUAL, JOBLET_SECCOMP_ARCH, 1, 0);
    emit(out, RETURN, KILL_PROCESS, 0, 0);
    emit(out, LOAD, OFFSET_NUMBER, 0, 0);
    write_search(out, segments, list_segments(segments));
}

void filter_system_calls(void)
{
    struct writer out = {.length = 0};
    write_filter(&out);

    /* SPEC_ALLOW: a kernel before 5.16 makes filtered processes slow otherwise; jobs are processes of their own. */
    struct program program = {(unsigned short)out.length, out.at};
    if (syscall(SYS_seccomp, SET_MODE_FILTER, FLAG_SPEC_ALLOW, &program) < 0)
        die(STAGE_PRIVILEGES, "seccomp");
}

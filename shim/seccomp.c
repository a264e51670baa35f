#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
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

/* Only the low half of an argument is looked at: all of these are int for the kernel, clone's namespaces have low bits. */
#define ARGUMENT_LOW(n) (OFFSET_ARGUMENTS + 8 * (n))

enum verdict { ALLOWED, DENIED, ABSENT, PERSONALITY, IOCTL, SOCKET, SOCKETPAIR, CLONE };

struct range {
    uint32_t first, last;
    enum verdict verdict;
};

/* The same numbers everywhere. What came after the newest call that this page knows does not exist for a job: a
 * kernel may be younger than its judgement here. The x32 entry points are such numbers too (bit 30). */
#define COMMON_RANGES                                                           \
    {425, 427, DENIED},     /* io_uring_setup, _enter, _register */             \
    {428, 433, DENIED},     /* open_tree, move_mount, fsopen, fsconfig, fsmount, fspick */ \
    {435, 435, ABSENT},     /* clone3: flags behind a pointer; libraries fall back to clone */ \
    {438, 438, DENIED},     /* pidfd_getfd */                                   \
    {440, 440, DENIED},     /* process_madvise */                               \
    {442, 443, DENIED},     /* mount_setattr, quotactl_fd */                    \
    {467, 467, DENIED},     /* open_tree_attr */                                \
    {470, UINT32_MAX, ABSENT}

#if defined(__x86_64__)
#define ARCHITECTURE 0xc000003eU
static const struct range ranges[] = {
    {16, 16, IOCTL},
    {41, 41, SOCKET},
    {53, 53, SOCKETPAIR},
    {56, 56, CLONE},
    {101, 101, DENIED}, /* ptrace */
    {103, 103, DENIED}, /* syslog */
    {134, 134, DENIED}, /* uselib */
    {135, 135, PERSONALITY},
    {153, 156, DENIED}, /* vhangup, modify_ldt, pivot_root, _sysctl */
    {159, 159, DENIED}, /* adjtimex */
    {161, 161, DENIED}, /* chroot */
    {163, 180, DENIED}, /* acct, settimeofday, mount, umount2, swapon, swapoff, reboot, sethostname, setdomainname, iopl,
                           ioperm, create_module, init_module, delete_module, get_kernel_syms, query_module, quotactl,
                           nfsservctl */
    {212, 212, DENIED}, /* lookup_dcookie */
    {227, 227, DENIED}, /* clock_settime */
    {246, 246, DENIED}, /* kexec_load */
    {248, 250, DENIED}, /* add_key, request_key, keyctl */
    {272, 272, DENIED}, /* unshare */
    {298, 298, DENIED}, /* perf_event_open */
    {300, 301, DENIED}, /* fanotify_init, fanotify_mark */
    {303, 305, DENIED}, /* name_to_handle_at, open_by_handle_at, clock_adjtime */
    {308, 308, DENIED}, /* setns */
    {310, 313, DENIED}, /* process_vm_readv, process_vm_writev, kcmp, finit_module */
    {320, 321, DENIED}, /* kexec_file_load, bpf */
    {323, 323, DENIED}, /* userfaultfd */
    COMMON_RANGES,
};
#elif defined(__aarch64__)
#define ARCHITECTURE 0xc00000b7U
static const struct range ranges[] = {
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
    {170, 171, DENIED}, /* settimeofday, adjtimex */
    {198, 198, SOCKET},
    {199, 199, SOCKETPAIR},
    {217, 219, DENIED}, /* add_key, request_key, keyctl */
    {220, 220, CLONE},
    {224, 225, DENIED}, /* swapon, swapoff */
    {241, 241, DENIED}, /* perf_event_open */
    {262, 266, DENIED}, /* fanotify_init, fanotify_mark, name_to_handle_at, open_by_handle_at, clock_adjtime */
    {268, 268, DENIED}, /* setns */
    {270, 273, DENIED}, /* process_vm_readv, process_vm_writev, kcmp, finit_module */
    {280, 280, DENIED}, /* bpf */
    {282, 282, DENIED}, /* userfaultfd */
    {294, 294, DENIED}, /* kexec_file_load */
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

/* Typing into a terminal that others read: ioctl_tty(2). */
static void write_ioctl(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(1), 0, 0);
    return_if_equal(out, TIOCSTI, FAIL(EPERM));
    return_if_equal(out, TIOCLINUX, FAIL(EPERM));
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

/* Unix, TCP, UDP, ping, and NETLINK_ROUTE (0), which getaddrinfo(3) asks for addresses. */
static void write_socket(struct writer *out)
{
    enum { TYPE_MASK = 0xf };
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
    return_if_equal(out, SOCK_STREAM, ALLOW);
    return_if_equal(out, SOCK_DGRAM, ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
}

static void write_socketpair(struct writer *out)
{
    emit(out, LOAD, ARGUMENT_LOW(0), 0, 0);
    return_if_equal(out, AF_UNIX, ALLOW);
    emit(out, RETURN, FAIL(EPERM), 0, 0);
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
    case CLONE:
        write_clone(out);
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

void filter_system_calls(void)
{
    struct segment segments[2 * RANGES + 1];
    struct writer out = {.length = 0};
    emit(&out, LOAD, OFFSET_ARCHITECTURE, 0, 0);
    emit(&out, JUMP_EQUAL, ARCHITECTURE, 1, 0);
    emit(&out, RETURN, KILL_PROCESS, 0, 0);
    emit(&out, LOAD, OFFSET_NUMBER, 0, 0);
    write_search(&out, segments, list_segments(segments));

    /* SPEC_ALLOW: a kernel before 5.16 makes filtered processes slow otherwise; jobs are processes of their own. */
    struct program program = {(unsigned short)out.length, out.at};
    if (syscall(SYS_seccomp, SET_MODE_FILTER, FLAG_SPEC_ALLOW, &program) < 0)
        die(STAGE_PRIVILEGES, "seccomp");
}

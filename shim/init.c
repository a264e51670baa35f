#include "init.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "exec.h"
#include "execute.h"
#include "kernel.h"
#include "landlock.h"
#include "namespaces.h"
#include "privileges.h"
#include "record.h"
#include "rootfs.h"
#include "terminal.h"

/* The init's only descriptors beside 0, 1 and 2: from IDMAPS on those that there are, and after them the disk. */
enum { MONITOR = 3, OUTPUT = 4, ERRORS = 5, INPUT = 6, EXEC = 7, IDMAPS = 8, KEPT_MAX = 5 + SPEC_WRITABLE_MAX + 2 };

static void tell(const struct message *message)
{
    /* Without a monitor there is nobody to run for. */
    if (RETRY(send(MONITOR, message, sizeof *message, MSG_NOSIGNAL)) < 0)
        _exit(1);
}

/* With a descriptor for the monitor to have: unix(7), SCM_RIGHTS. */
static void pass(struct message message, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof fd)];
        struct cmsghdr header;
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {&message, sizeof message};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (RETRY(sendmsg(MONITOR, &packet, MSG_NOSIGNAL)) < 0)
        _exit(1);
}

static void tell_failure(const struct failure *failure, void *context)
{
    (void)context;
    tell(&(struct message){.kind = MESSAGE_FAILED, .failure = *failure});
}

static void await_go(void)
{
    char go;
    if (RETRY(recv(MONITOR, &go, 1, 0)) != 1)
        _exit(1);
}

/* Everything else that the monitor had open, its lock above all, is closed before anything can go wrong here. */
static void keep_only(const struct handed *handed)
{
    int kept[KEPT_MAX] = {handed->monitor, handed->output, handed->errors, handed->input, handed->exec};
    size_t count = 5 + handed->idmaps;
    memcpy(kept + 5, handed->idmap, handed->idmaps * sizeof *kept);
    if (handed->disk >= 0)
        kept[count++] = handed->disk;
    /* Out of the way first, or one would be overwritten before its turn. */
    for (size_t i = 0; i < count; i++)
        if (kept[i] >= 0 && (kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, MONITOR + KEPT_MAX)) < 0)
            _exit(1); /* the monitor sees the socket close */
    for (size_t i = 0; i < count; i++)
        if (kept[i] < 0)
            close(MONITOR + (int)i);
        else if (dup3(kept[i], MONITOR + (int)i, O_CLOEXEC) < 0)
            _exit(1);
    if (kernel_close_range(MONITOR + (unsigned)count) < 0)
        _exit(1);
}

/* The monitor's own 0, 1 and 2 lead to the host's /dev. */
static void use_own_null(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (null < 0)
        die(STAGE_ROOTFS, "open /dev/null");
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(null, fd) < 0)
            die(STAGE_ROOTFS, "dup2 %d", fd);
    close(null);
}

/* After the credentials have changed, for that clears it: prctl(2), PR_SET_PDEATHSIG. A monitor that died before has closed
 * its end of the socket, for an exiting process closes its files before it signals its children; one that dies from
 * now on takes this process with it. So there is no moment at which its death is missed. */
static void die_with_monitor(void)
{
    char nothing;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die(STAGE_PRIVILEGES, "prctl PR_SET_PDEATHSIG");
    if (recv(MONITOR, &nothing, 1, MSG_DONTWAIT | MSG_PEEK) == 0)
        _exit(1);
}

/* The signals that the loop at the end takes; a blocked signal reaches even process 1: pid_namespaces(7). */
static void block_signals(sigset_t *set)
{
    static const int taken[] = {SIGCHLD, SIGTERM, SIGHUP,  SIGINT,  SIGQUIT,
                                SIGABRT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH};
    sigemptyset(set);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        sigaddset(set, taken[i]);
    if (sigprocmask(SIG_SETMASK, set, NULL) < 0)
        die(STAGE_PRIVILEGES, "sigprocmask");
}

static int open_signals(const sigset_t *set)
{
    int signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        die(STAGE_PRIVILEGES, "signalfd");
    return signals;
}

struct execution {
    const struct spec *spec;
    int terminal; /* -1: there is none */
    int error;    /* errno of what failed in the child */
};

/* In the child, on a stack of its own. Its session and its group have its own number before the init goes on, so that
 * SIGTERM always finds them. */
static int execute(void *context)
{
    struct execution *execution = context;
    reset_signals();
    setsid();
    int terminal = execution->terminal;
    int in = terminal >= 0 ? terminal : execution->spec->input ? INPUT : 0;
    int out = terminal >= 0 ? terminal : OUTPUT;
    int err = terminal >= 0 ? terminal : ERRORS;
    if (terminal >= 0 && ioctl(terminal, TIOCSCTTY, 0) < 0)
        execution->error = errno;
    else if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        execution->error = errno;
    else
        execution->error = search_and_execute(&execution->spec->arg, &execution->spec->env);
    return 127;
}

/* As vfork(2): the child shares the init's memory, and the init waits, until it executes the command; so no one needs
 * to be told how that went. */
static pid_t start_command(const struct spec *spec, int terminal)
{
    static _Alignas(16) char stack[64 << 10];
    struct execution execution = {.spec = spec, .terminal = terminal};
    int64_t at = monotonic_us();
    pid_t command = clone(execute, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &execution);
    if (command < 0)
        die(STAGE_EXEC, "clone");
    errno = execution.error;
    if (errno)
        die(STAGE_EXEC, "execve");
    if (terminal < 0) {
        close(OUTPUT); /* or the monitor would never see their ends */
        close(ERRORS);
    }
    if (spec->input)
        close(INPUT); /* or it would never see that nobody reads it any more */
    tell(&(struct message){.kind = MESSAGE_STARTED, .at = at});
    return command;
}

/* The command's status is for the monitor, that of another asked for is for who did; all others are reaped for being dead. */
static void reap(pid_t command, struct sessions *sessions)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == command) {
            tell(&(struct message){.kind = MESSAGE_ENDED, .status = status, .at = monotonic_us()});
            _exit(0); /* and the kernel kills what is left: pid_namespaces(7) */
        } else {
            exec_reaped(sessions, pid, status);
        }
}

/* What the monitor sends goes to the command's process group: a sender outside of the namespace has the number 0 here
 * (pid_namespaces(7)). Of what the job itself sends to its process 1 only SIGTERM does, as to an init. */
static _Noreturn void forward_and_reap(pid_t command, int signals)
{
    static struct sessions sessions;
    struct signalfd_siginfo info;
    exec_begin(&sessions, EXEC);
    for (;;) {
        exec_wait(&sessions, signals);
        while (read(signals, &info, sizeof info) == sizeof info)
            if (info.ssi_signo == SIGTERM || (info.ssi_signo != SIGCHLD && info.ssi_pid == 0))
                kill(-command, (int)info.ssi_signo);
        reap(command, &sessions);
    }
}

/* The slave, or -1. It stays open here: a master has an error for a reader while nobody has its slave open, as when the
 * command closes it for a moment. */
static int make_terminal(const struct spec *spec)
{
    if (!spec->rows)
        return -1;
    struct terminal made = terminal_open(spec->rows, spec->columns);
    pass((struct message){.kind = MESSAGE_TERMINAL}, made.master);
    close(made.master);
    return made.slave;
}

/* As the job, which may enter no more than that can. */
static void enter(const char *directory)
{
    if (directory && chdir(directory) < 0)
        die(STAGE_ENTER, "chdir");
}

void init_run(const struct spec *spec, const struct handed *handed)
{
    sigset_t taken;
    keep_only(handed);
    die_through(tell_failure, NULL);
    block_signals(&taken);

    enter_rootfs(spec, IDMAPS, IDMAPS + (int)handed->idmaps);
    use_own_null();
    await_go(); /* in all groups */
    name_host(spec->hostname);
    enter_user_namespace(spec->uid_base);
    tell(&(struct message){.kind = MESSAGE_UNMAPPED});
    await_go(); /* ids are mapped */
    drop_privileges(spec->open_files);
    die_with_monitor();
    int terminal = make_terminal(spec);
    confine_to_writable(spec);
    filter_system_calls();
    enter(spec->cwd);
    int signals = open_signals(&taken);

    forward_and_reap(start_command(spec, terminal), signals);
}

#include "monitor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "disk.h"
#include "exec.h"
#include "init.h"
#include "kernel.h"
#include "namespaces.h"
#include "stop.h"

enum {
    PIPE_SIZE = 1 << 20,
    PIPE_SIZE_SMALL = 256 << 10,
    BUFFER_SIZE = 256 << 10,
    TERMINAL_SIZE = 128 << 10, /* more than a terminal holds for its reader */
    SHORT_READ = 64 << 10, /* below this it pays to wait for more */
    FLOWING_READS = 2,     /* so many in quick succession are a flow */
    NAP_MS = 1,
    IDLE_MS = 1000, /* after this the buffer's memory is given back */
    OOM_LOOKS = 200, /* at the count of kills after an event, one a NAP_MS */
};

void monitor_signals(struct monitor *monitor)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGXFSZ};
    sigset_t taken;
    signal(SIGCHLD, SIG_DFL); /* ignored, it would take the init's status away: wait(2) */
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&taken);
    sigaddset(&taken, SIGTERM);
    sigaddset(&taken, SIGUSR1);
    sigprocmask(SIG_SETMASK, &taken, NULL);
    monitor->signals = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (monitor->signals < 0)
        die(STAGE_LOG, "signalfd");
}

void monitor_groups(struct monitor *monitor)
{
    monitor->log.limit = monitor->spec.log_limit;
    monitor->log.index.apart = monitor->spec.apart;
    groups_make(&monitor->groups, &monitor->spec);
    monitor->oom = groups_watch_oom(&monitor->groups);
}

static int64_t monotonic_ms(void)
{
    return monotonic_us() / 1000;
}

static void let_go_on(struct monitor *monitor)
{
    /* A failure is noticed by the next message, or by its absence. */
    RETRY(send(monitor->socket, "", 1, MSG_NOSIGNAL));
}

/* An init that ended before it had read our byte resets the connection, and what it said last comes after that: unix(7). */
static bool receive(struct monitor *monitor, struct message *message, int flags)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {.space = {0}};
    struct iovec part = {message, sizeof *message};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    flags |= MSG_CMSG_CLOEXEC;
    long length = RETRY(recvmsg(monitor->socket, &packet, flags));
    if (length < 0 && errno == ECONNRESET)
        length = RETRY(recvmsg(monitor->socket, &packet, flags));
    monitor->passed = -1;
    if (length >= 0 && packet.msg_controllen == sizeof control && control.header.cmsg_type == SCM_RIGHTS)
        memcpy(&monitor->passed, CMSG_DATA(&control.header), sizeof monitor->passed);
    return length == sizeof *message;
}

/* The PID namespace dies whole with it. It too may wait for its I/O. */
static void kill_init(struct monitor *monitor)
{
    groups_lift(&monitor->groups);
    kernel_pidfd_send_signal(monitor->pidfd, SIGKILL);
}

static void kill_job(struct monitor *monitor)
{
    monitor->outcome.stop = "kill";
    kill_init(monitor);
    groups_kill(&monitor->groups);
}

/* Until the init has a message or is gone, which can take as long as what it reads to come to its command. A stop has
 * nobody to be graceful to. Should the command have been begun meanwhile, the init's message of that is still taken. */
static void await_word(struct monitor *monitor)
{
    struct signalfd_siginfo info;
    struct pollfd word = {.fd = monitor->socket, .events = POLLIN};
    struct pollfd events[] = {word, {.fd = monitor->signals, .events = POLLIN}};
    RETRY(poll(events, 2, -1));
    if (events[0].revents || read(monitor->signals, &info, sizeof info) != sizeof info)
        return;
    kill_job(monitor);
    RETRY(poll(&word, 1, -1));
}

/* Waits for the init to come that far; when it did. */
static int64_t await(struct monitor *monitor, int kind)
{
    struct message message;
    await_word(monitor);
    bool told = receive(monitor, &message, 0);
    if (monitor->outcome.stop && !(told && message.kind == MESSAGE_STARTED)) {
        errno = ECANCELED;
        die(STAGE_STOPPED, "stop");
    }
    if (told && (int)message.kind == kind)
        return message.at;
    if (!told || message.kind != MESSAGE_FAILED) {
        errno = ECHILD;
        die(STAGE_NAMESPACE, "init has died");
    }
    errno = message.failure.error;
    message.failure.call[sizeof message.failure.call - 1] = '\0';
    die(message.failure.stage, "%s", message.failure.call);
}

/* It has memory only while output flows. */
static void make_buffer(struct monitor *monitor)
{
    monitor->buffer =
        mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (monitor->buffer == MAP_FAILED)
        die(STAGE_LOG, "mmap");
}

/* A pipe bigger than the usual 64 KiB, so that a job seldom waits for its log: pipe(7). */
static void make_output(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        die(STAGE_LOG, "pipe2");
    if (fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE) < 0)
        fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE_SMALL);
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        die(STAGE_LOG, "fcntl O_NONBLOCK");
}

void monitor_launch(struct monitor *monitor)
{
    const struct spec *spec = &monitor->spec;
    int output[2] = {-1, -1}, errors[2] = {-1, -1}, sockets[2], input = -1;
    make_buffer(monitor);
    if (!spec->rows)
        make_output(output);
    if (spec->apart)
        make_output(errors);
    if (spec->rows || spec->input)
        input_open(&monitor->input, FD_DIR);
    if (spec->input)
        input = input_make_pipe(&monitor->input, spec->uid_base);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        die(STAGE_NAMESPACE, "socketpair");
    /* The init's copy of this directory is in its own mount namespace, as the places that it mounts must be. */
    if (fchdir(FD_DIR) < 0)
        die(STAGE_ROOTFS, "fchdir");

    struct handed handed = {.monitor = sockets[1],
                            .output = output[1],
                            .errors = spec->apart ? errors[1] : output[1],
                            .input = input,
                            .exec = exec_listen()};
    for (size_t i = 0; i < spec->rw.count; i++)
        handed.idmap[handed.idmaps++] = make_idmap(spec->rw.at[i], spec->uid_base, false);
    if (spec->shared)
        handed.idmap[handed.idmaps++] = make_idmap(spec->shared, spec->uid_base, true);
    if (spec->disk)
        monitor->work = mount_disk(spec->uid_base);
    handed.disk = monitor->work;

    monitor->init = clone_init(groups_v2(&monitor->groups), &monitor->pidfd);
    if (monitor->init == 0)
        init_run(spec, &handed);
    for (size_t i = 0; i < handed.idmaps; i++)
        close(handed.idmap[i]);
    close(handed.exec); /* or a server would wait for an init that is gone */
    close(sockets[1]);
    close(output[1]);
    close(errors[1]);
    close(input);
    monitor->socket = sockets[0];
    monitor->output = output[0];
    monitor->errors = errors[0];

    groups_enter(&monitor->groups, monitor->init);
    let_go_on(monitor);
    await(monitor, MESSAGE_UNMAPPED);
    map_ids(monitor->init, spec->uid_base, spec->id_count);
    let_go_on(monitor);
    if (spec->rows) {
        await(monitor, MESSAGE_TERMINAL);
        monitor->output = monitor->passed;
        input_use_terminal(&monitor->input, monitor->output);
    }
    monitor->outcome.began = await(monitor, MESSAGE_STARTED);
    monitor->outcome.started_at = now_ns();
    record_started(FD_DIR, monitor->init, &monitor->outcome);
    report_started(FD_REPORT, monitor->init);
    close(FD_REPORT);
}

/* The loop's state. */
struct watch {
    int64_t drained_at;  /* when the last output came */
    int64_t deadline;    /* when a graceful stop becomes a kill; 0: no stop */
    struct stop stop;    /* the one under way */
    int reads;           /* in quick succession */
    int oom_looks;       /* left at the kernel's count of what it killed for want of memory */
    bool napping, dirty; /* letting output gather; buffer has memory to give back */
    bool lifted;         /* the limits that would hold up the end */
};

/* The whole job ends, as with memory.oom.group on v2. The event comes before the kernel has killed and counted; should
 * it have found memory after all, the job goes on. */
static void end_out_of_memory(struct monitor *monitor, struct watch *watch)
{
    watch->oom_looks--;
    if (!groups_oom_killed(&monitor->groups))
        return;
    watch->oom_looks = 0;
    kill_init(monitor);
}

static void take_oom(struct monitor *monitor, struct watch *watch)
{
    uint64_t events;
    if (read(monitor->oom, &events, sizeof events) == sizeof events)
        watch->oom_looks = OOM_LOOKS;
}

/* What is under way already is not begun again: whoever finds the job again asks again, to be sure. */
static void take_stop(struct monitor *monitor, struct watch *watch)
{
    struct stop stop = stop_read(FD_DIR, monitor->spec.grace_ms);
    int64_t deadline = monotonic_ms() + stop.grace_ms;
    bool stopping = monitor->outcome.stop;
    if (stopping && (strcmp(monitor->outcome.stop, "kill") == 0 || stop_is_same(stop, watch->stop)))
        return;
    if (stop.grace_ms == 0) {
        kill_job(monitor);
        return;
    }
    watch->stop = stop;
    watch->deadline = stopping && watch->deadline < deadline ? watch->deadline : deadline;
    monitor->outcome.stop = "term";
    kernel_pidfd_send_signal(monitor->pidfd, stop.signal);
}

static void take_signals(struct monitor *monitor, struct watch *watch)
{
    struct signalfd_siginfo info;
    while (read(monitor->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGUSR1)
            kill_job(monitor);
        else
            take_stop(monitor, watch);
    }
}

/* One read into the log. Each costs two system calls and wakes the log's followers, so a program that writes line by
 * line is left alone for a moment each time, once it proves to go on; the first lines are not kept waiting. */
static void drain(struct monitor *monitor, struct watch *watch, int *pipe, enum stream stream)
{
    ssize_t length = read(*pipe, monitor->buffer, BUFFER_SIZE);
    if (length == 0 || (length < 0 && errno == EIO)) { /* a terminal ends by the latter */
        close(*pipe);
        *pipe = -1;
    }
    if (length <= 0)
        return;
    log_write(&monitor->log, stream, monitor->buffer, (size_t)length);
    int64_t now = monotonic_ms();
    watch->reads = now - watch->drained_at <= NAP_MS + 1 ? watch->reads + 1 : 0;
    watch->drained_at = now;
    watch->napping = length < SHORT_READ && watch->reads >= FLOWING_READS;
    watch->dirty = true;
}

static int choose_timeout(const struct monitor *monitor, const struct watch *watch)
{
    int64_t timeout = watch->napping || watch->oom_looks ? NAP_MS : watch->dirty ? IDLE_MS : -1;
    if (watch->deadline && strcmp(monitor->outcome.stop, "term") == 0) {
        int64_t left = watch->deadline - monotonic_ms();
        if (timeout < 0 || left < timeout)
            timeout = left > 0 ? left : 0;
    }
    return (int)timeout;
}

static bool is_grace_over(const struct monitor *monitor, const struct watch *watch)
{
    return watch->deadline && strcmp(monitor->outcome.stop, "term") == 0 && monotonic_ms() >= watch->deadline;
}

void monitor_watch(struct monitor *monitor)
{
    struct watch watch = {0};
    enum { OUTPUT, ERRORS, INIT, ENDING, SIGNALS, OOM, INPUT, TARGET, COUNT };
    for (;;) {
        struct pollfd events[COUNT] = {
            [OUTPUT] = {.fd = watch.napping ? -1 : monitor->output, .events = POLLIN},
            [ERRORS] = {.fd = watch.napping ? -1 : monitor->errors, .events = POLLIN},
            [INIT] = {.fd = monitor->pidfd, .events = POLLIN},
            [ENDING] = {.fd = watch.lifted ? -1 : monitor->socket, .events = POLLIN},
            [SIGNALS] = {.fd = monitor->signals, .events = POLLIN},
            [OOM] = {.fd = monitor->oom, .events = POLLIN},
            [INPUT] = input_awaits_frames(&monitor->input),
            [TARGET] = input_awaits_target(&monitor->input),
        };
        int ready = poll(events, COUNT, choose_timeout(monitor, &watch));
        if (ready == 0 && !watch.napping && !watch.oom_looks && watch.dirty) {
            madvise(monitor->buffer, BUFFER_SIZE, MADV_DONTNEED);
            watch.dirty = false;
        }
        watch.napping = false;
        if (events[SIGNALS].revents)
            take_signals(monitor, &watch);
        if (events[OOM].revents)
            take_oom(monitor, &watch);
        if (watch.oom_looks)
            end_out_of_memory(monitor, &watch);
        if (is_grace_over(monitor, &watch))
            kill_job(monitor);
        if (events[ENDING].revents) { /* the command has ended, or the init; what is left in the job dies before it does */
            groups_lift(&monitor->groups);
            watch.lifted = true;
        }
        if (events[INIT].revents)
            break;
        if (events[INPUT].revents || events[TARGET].revents)
            input_pass_on(&monitor->input, events[TARGET].revents & POLLERR);
        if (events[OUTPUT].revents)
            drain(monitor, &watch, &monitor->output, STREAM_OUTPUT);
        if (events[ERRORS].revents)
            drain(monitor, &watch, &monitor->errors, STREAM_ERRORS);
    }
}

/* The status of the command, or of the init where it could not tell: killed by us, or by the kernel for want of memory. */
static void read_status(struct monitor *monitor)
{
    struct outcome *outcome = &monitor->outcome;
    struct message message = {.kind = MESSAGE_FAILED};
    int status = SIGKILL;
    RETRY(waitpid(monitor->init, &status, 0));
    if (receive(monitor, &message, MSG_DONTWAIT) && message.kind == MESSAGE_ENDED)
        status = message.status;
    outcome->lasted = (message.kind == MESSAGE_ENDED ? message.at : monotonic_us()) - outcome->began;
    outcome->kind = WIFEXITED(status) ? OUTCOME_EXITED : OUTCOME_SIGNALED;
    outcome->number = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
}

/* What was in the pipe when the job was over. Not until its end: a job can have passed the pipe on to a process outside,
 * which may write for ever. */
static void drain_rest(struct monitor *monitor, int pipe, enum stream stream)
{
    int left = TERMINAL_SIZE; /* it cannot be asked, but says when there is no more */
    if (pipe < 0 || (!monitor->spec.rows && ioctl(pipe, FIONREAD, &left) < 0))
        return;
    while (left > 0) {
        size_t most = left < BUFFER_SIZE ? (size_t)left : BUFFER_SIZE;
        ssize_t length = RETRY(read(pipe, monitor->buffer, most));
        if (length <= 0)
            return;
        log_write(&monitor->log, stream, monitor->buffer, (size_t)length);
        left -= (int)length;
    }
}

/* A disk is gone once nothing of it is open: before the counters are read, which what it still had to write is counted in. */
static void take_outputs(struct monitor *monitor)
{
    const char *name = monitor->spec.outputs;
    int work = monitor->work;
    if (name && work < 0)
        work = openat(FD_DIR, "work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (name)
        monitor->outcome.outputs = outputs_take(work, name, FD_DIR, monitor->buffer);
    if (work >= 0)
        close(work);
    monitor->work = -1;
}

/* The groups' counters first: they go with the groups. The record last: it says that all else is done. */
static void write_end(struct monitor *monitor)
{
    struct outcome *outcome = &monitor->outcome;
    char stats[STATS_SIZE];
    outcome->ended_at = now_ns();
    groups_settle(&monitor->groups);
    stats[groups_stat(&monitor->groups, stats, 0, sizeof stats)] = '\0';
    groups_remove(&monitor->groups);
    outcome->log_bytes = log_finish(&monitor->log);
    outcome->log_lost = monitor->log.lost;
    record_exit(FD_DIR, outcome, stats, monitor->spec.server);
}

void monitor_conclude(struct monitor *monitor)
{
    read_status(monitor);
    drain_rest(monitor, monitor->output, STREAM_OUTPUT);
    drain_rest(monitor, monitor->errors, STREAM_ERRORS);
    take_outputs(monitor);
    write_end(monitor);
}

void monitor_fail(const struct failure *failure, void *context)
{
    struct monitor *monitor = context;
    struct outcome *outcome = &monitor->outcome;
    char sentence[SENTENCE_SIZE], line[SENTENCE_SIZE + 160];
    if (monitor->init > 0) {
        kill_init(monitor);
        RETRY(waitpid(monitor->init, NULL, 0));
    }
    outcome->kind = OUTCOME_FAILED;
    outcome->failure = failure;
    if (failure->stage == STAGE_ENTER)
        outcome->subject = monitor->spec.cwd;
    else if (monitor->spec.arg.count)
        outcome->subject = monitor->spec.arg.at[0];
    write_sentence(sentence, failure, outcome->subject);
    bool call = failure->stage > STAGE_SPEC && failure->stage < STAGE_EXEC;
    int length = snprintf(line, sizeof line, call ? "joblet: %s (%s)\n" : "joblet: %s\n", sentence, failure->call);
    if (failure->stage != STAGE_STOPPED) /* which was asked for, and is no fault to tell of */
        log_write(&monitor->log, STREAM_ERRORS, line, (size_t)length);
    write_end(monitor);
    report_failed(FD_REPORT, failure, outcome->subject);
}

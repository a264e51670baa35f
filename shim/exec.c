#include "exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "die.h"
#include "execute.h"
#include "kernel.h"
#include "record.h"
#include "spec.h"
#include "terminal.h"

enum { PACKET_SIZE = 16, HANDED_MAX = 4 };

/* The descriptors that come with a request, by their number: the spec alone means a terminal, which is made here. */
enum { SPEC, OUT, ERR, IN };

struct request {
    int socket;
    int fd[HANDED_MAX];
    size_t fds;
    const char *cwd;
    unsigned short rows, columns; /* of the terminal */
    struct strings arg, env;
};

int exec_listen(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "exec"};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, SESSIONS_MAX) < 0)
        die(STAGE_LOG, "bind exec");
    return listener;
}

void exec_begin(struct sessions *sessions, int listener)
{
    *sessions = (struct sessions){.listener = listener};
    /* Ignored by the monitor; a child that still did so would miss one that comes early. To an init it does nothing. */
    signal(SIGHUP, SIG_DFL);
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        sessions->at[i].socket = -1;
}

static void tell_failure(const struct failure *failure, void *context)
{
    const struct request *request = context;
    const char *subject = failure->stage == STAGE_ENTER ? request->cwd : request->arg.count ? request->arg.at[0] : NULL;
    report_failed(request->socket, failure, subject);
}

/* Digits only: both come from the server, which has looked at them. */
static unsigned short read_side(const char *text)
{
    unsigned long side = strtoul(text, NULL, 10);
    errno = EINVAL;
    if (side == 0 || side > UINT16_MAX)
        die(STAGE_SPEC, "not a size");
    return (unsigned short)side;
}

static bool take(char *entry, const char *key, char **value)
{
    size_t length = strlen(key);
    if (strncmp(entry, key, length) != 0 || entry[length] != '=')
        return false;
    *value = entry + length + 1;
    return true;
}

/* The lists get room for every entry and a NULL. */
static void parse(struct request *request, char *text, size_t length)
{
    char *value = NULL, *end = NULL;
    size_t entries = 0;
    errno = EINVAL;
    if (length == 0 || text[length - 1] != '\0')
        die(STAGE_SPEC, "does not end with a NUL");
    for (size_t i = 0; i < length; i++)
        entries += text[i] == '\0';
    request->arg.at = calloc(entries + 1, sizeof(char *));
    request->env.at = calloc(entries + 1, sizeof(char *));
    if (entries > SPEC_ENTRIES_MAX || !request->arg.at || !request->env.at)
        die(STAGE_SPEC, "too many entries");
    for (char *entry = text; entry < text + length; entry += strlen(entry) + 1) {
        if (end)
            die(STAGE_SPEC, "bytes after end");
        if (take(entry, "arg", &value))
            request->arg.at[request->arg.count++] = value;
        else if (take(entry, "env", &value))
            request->env.at[request->env.count++] = value;
        else if (take(entry, "cwd", &value))
            request->cwd = value;
        else if (take(entry, "rows", &value))
            request->rows = read_side(value);
        else if (take(entry, "columns", &value))
            request->columns = read_side(value);
        else if (take(entry, "end", &value))
            end = entry + strlen(entry) + 1;
        else
            die(STAGE_SPEC, "unknown key");
    }
    errno = EINVAL;
    if (end != text + length || request->arg.count == 0 || !request->cwd)
        die(STAGE_SPEC, "incomplete");
}

static void read_spec(struct request *request)
{
    struct stat what;
    if (fstat(request->fd[SPEC], &what) < 0)
        die(STAGE_SPEC, "cannot be read");
    errno = EINVAL;
    if (what.st_size <= 0 || what.st_size > SPEC_BYTES_MAX)
        die(STAGE_SPEC, "too long, or empty");
    size_t length = (size_t)what.st_size;
    char *text = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, request->fd[SPEC], 0);
    if (text == MAP_FAILED)
        die(STAGE_SPEC, "cannot be read");
    parse(request, text, length);
}

/* The server talks to the other end of the terminal. */
static void give_away(int socket, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    static char word[] = "terminal\n";
    struct iovec words = {.iov_base = word, .iov_len = sizeof word - 1};
    struct msghdr message = {
        .msg_iov = &words, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (RETRY(sendmsg(socket, &message, MSG_NOSIGNAL)) < 0)
        die(STAGE_TERMINAL, "sendmsg");
}

/* The child leads its session, which has no terminal yet: ioctl_tty(2). */
static int make_terminal(const struct request *request)
{
    struct terminal made = terminal_open(request->rows, request->columns);
    if (ioctl(made.slave, TIOCSCTTY, 0) < 0)
        die(STAGE_TERMINAL, "ioctl TIOCSCTTY");
    give_away(request->socket, made.master);
    return made.slave;
}

static void connect_to(int from, int fd)
{
    if (dup2(from, fd) < 0)
        die(STAGE_EXEC, "dup2 %d", fd);
}

/* 0, 1 and 2 are the job's own /dev/null so far. All else that the child has of the init is closed on exec, and until
 * then nobody can get at it: the init is not dumpable and neither is its child, fork(2), prctl(2). */
static _Noreturn void run(struct request *request)
{
    die_through(tell_failure, request);
    reset_signals();
    setsid();
    read_spec(request);
    if (request->fds == 1) {
        int terminal = make_terminal(request);
        for (int fd = 0; fd <= 2; fd++)
            connect_to(terminal, fd);
    } else {
        if (request->fds > IN)
            connect_to(request->fd[IN], 0);
        connect_to(request->fd[OUT], 1);
        connect_to(request->fd[ERR], 2);
    }
    if (chdir(request->cwd) < 0)
        die(STAGE_ENTER, "chdir");
    errno = search_and_execute(&request->arg, &request->env);
    die(STAGE_EXEC, "execve");
}

/* A child, not a vfork(2): what another process of the job does to it, such as stopping it, must not stop the init. */
static void start(struct session *session, struct request *request)
{
    session->pid = request->fds == 1 || request->fds > ERR ? fork() : (errno = EINVAL, -1);
    if (session->pid == 0)
        run(request);
    if (session->pid > 0)
        return;
    report_failed(session->socket, &(struct failure){.stage = STAGE_EXEC, .error = errno}, "another process");
    session->pid = 0;
    close(session->socket);
    session->socket = -1;
}

/* The command and the processes of its group. The number is its own until the init has reaped it. Before its setsid(2) it
 * has no such group. */
static void signal_command(const struct session *session, int sig)
{
    if (session->pid > 0 && kill(-session->pid, sig) < 0)
        kill(session->pid, sig);
}

static bool is_free(const struct session *session)
{
    return session->socket < 0 && session->pid == 0;
}

static void take_connection(struct sessions *sessions)
{
    int socket = accept4(sessions->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0)
        return;
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (is_free(&sessions->at[i])) {
            sessions->at[i].socket = socket;
            return;
        }
    close(socket); /* which tells the server */
}

static void keep_handed(struct msghdr *message, struct request *request)
{
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    request->fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(request->fd, CMSG_DATA(header), request->fds * sizeof(int));
}

/* Nothing, without an error, is the end of the connection: the server has given the command up, or is gone. */
static void take_packet(struct session *session)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(HANDED_MAX * sizeof(int))];
    } control;
    char packet[PACKET_SIZE];
    struct iovec words = {.iov_base = packet, .iov_len = sizeof packet};
    struct msghdr message = {
        .msg_iov = &words, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct request request = {.socket = session->socket};
    ssize_t length = RETRY(recvmsg(session->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        close(session->socket);
        session->socket = -1;
        signal_command(session, SIGKILL);
        return;
    }
    keep_handed(&message, &request);
    if (session->pid == 0)
        start(session, &request);
    else
        signal_command(session, SIGHUP);
    for (size_t i = 0; i < request.fds; i++)
        close(request.fd[i]);
}

void exec_wait(struct sessions *sessions, int signals)
{
    enum { SIGNALS, LISTENER, FIRST };
    struct pollfd events[FIRST + SESSIONS_MAX] = {
        [SIGNALS] = {.fd = signals, .events = POLLIN},
        [LISTENER] = {.fd = sessions->listener, .events = POLLIN},
    };
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        events[FIRST + i] = (struct pollfd){.fd = sessions->at[i].socket, .events = POLLIN};
    if (poll(events, FIRST + SESSIONS_MAX, -1) < 0)
        return;
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (events[FIRST + i].revents)
            take_packet(&sessions->at[i]);
    if (events[LISTENER].revents)
        take_connection(sessions);
}

void exec_reaped(struct sessions *sessions, pid_t pid, int status)
{
    char word[32];
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = &sessions->at[i];
        if (session->pid != pid)
            continue;
        session->pid = 0;
        if (session->socket < 0)
            return;
        int length = WIFEXITED(status) ? snprintf(word, sizeof word, "exited %d\n", WEXITSTATUS(status))
                                       : snprintf(word, sizeof word, "signaled %d\n", WTERMSIG(status));
        send(session->socket, word, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(session->socket);
        session->socket = -1;
        return;
    }
}

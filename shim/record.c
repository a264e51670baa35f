#include "record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel.h"
#include "spec.h"

enum { SUBJECT_MAX = 200, STARTED_SIZE = 128 };

static const char *const stages[] = {
    [STAGE_SPEC] = "spec",
    [STAGE_LOG] = "log",
    [STAGE_CGROUP] = "cgroup",
    [STAGE_NAMESPACE] = "namespace",
    [STAGE_ROOTFS] = "rootfs",
    [STAGE_PRIVILEGES] = "privileges",
    [STAGE_EXEC] = "exec",
    [STAGE_ENTER] = "exec",
    [STAGE_TERMINAL] = "terminal",
    [STAGE_STOPPED] = "stopped",
};

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int create(int dir, const char *name)
{
    return openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static bool write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = RETRY(write(fd, text, length));
        if (written < 0)
            return false;
        text += written;
        length -= (size_t)written;
    }
    return true;
}

static void read_line(const char *path, char *line, int size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : RETRY(read(fd, line, (size_t)size - 1));
    if (length <= 0)
        die(STAGE_LOG, "read %s", path);
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    close(fd);
}

/* Field 22; the second one is a name in parentheses, with whatever in it: proc(5). */
static const char *find_start_time(char *stat)
{
    char *rest, *field = strrchr(stat, ')');
    if (!field || strtol(stat, NULL, 10) != getpid()) {
        errno = ESRCH; /* the /proc of another PID namespace: the id maps would go to a stranger */
        die(STAGE_LOG, "read /proc/self/stat");
    }
    field = strtok_r(field + 1, " ", &rest);
    for (int i = 3; field && i < 22; i++)
        field = strtok_r(NULL, " ", &rest);
    return field ? field : "0";
}

void record_monitor(int dir)
{
    char stat[1024], boot[64], text[256];
    read_line("/proc/self/stat", stat, sizeof stat);
    read_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    int length = snprintf(text, sizeof text, "version=" PROTOCOL_VERSION "\npid=%d\nstart=%s\nboot=%s\n", (int)getpid(),
                          find_start_time(stat), boot);
    int fd = create(dir, ".monitor");
    if (fd < 0 || !write_all(fd, text, (size_t)length) || renameat(dir, ".monitor", dir, "monitor") < 0)
        die(STAGE_LOG, "write monitor");
    close(fd);
}

static void reserve(int dir, const char *name, off_t size)
{
    int fd = create(dir, name);
    if (fd < 0)
        die(STAGE_LOG, "open %s", name);
    if (fallocate(fd, 0, 0, size) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        die(STAGE_LOG, "fallocate %s", name);
    close(fd);
}

void record_reserve(int dir)
{
    reserve(dir, ".started", STARTED_SIZE);
    reserve(dir, ".exit", RECORD_SIZE);
}

/* Into what was reserved: written over, then cut. */
static bool fill(int dir, const char *name, const char *text, size_t length, bool durable)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool good = write_all(fd, text, length) && ftruncate(fd, (off_t)length) == 0 && (!durable || fsync(fd) == 0);
    int error = errno;
    close(fd);
    errno = error;
    return good;
}

/* Should it fail, the job runs all the same, and the exit record has the time too. */
void record_started(int dir, pid_t init, const struct outcome *outcome)
{
    char text[STARTED_SIZE];
    int length = snprintf(text, sizeof text, "init=%d\nat=%" PRId64 "\nmonotonic_us=%" PRId64 "\n", (int)init,
                          outcome->started_at, outcome->began);
    if (fill(dir, ".started", text, (size_t)length, false))
        renameat(dir, ".started", dir, "started");
}

bool record_outputs(int dir, const char *bytes, size_t length)
{
    return fill(dir, "outputs", bytes, length, true);
}

static void lower_first(char *text)
{
    *text = (char)tolower((unsigned char)*text);
}

static void write_subject(char *out, const char *subject)
{
    size_t i = 0;
    for (; i < SUBJECT_MAX && subject[i]; i++)
        out[i] = (unsigned char)subject[i] < ' ' || subject[i] == 0x7f ? '?' : subject[i];
    out[i] = '\0';
}

void write_sentence(char sentence[SENTENCE_SIZE], const struct failure *failure, const char *subject)
{
    char error[128], name[SUBJECT_MAX + 1];
    snprintf(error, sizeof error, "%s", strerror(failure->error));
    lower_first(error);
    write_subject(name, subject ? subject : "");

    switch (failure->stage) {
    case STAGE_SPEC:
        snprintf(sentence, SENTENCE_SIZE, "invalid job spec: %s", failure->call);
        break;
    case STAGE_LOG:
        snprintf(sentence, SENTENCE_SIZE, "log setup failed: %s", error);
        break;
    case STAGE_CGROUP:
        snprintf(sentence, SENTENCE_SIZE, "cgroup setup failed: %s", error);
        break;
    case STAGE_NAMESPACE:
    case STAGE_ROOTFS:
    case STAGE_PRIVILEGES:
        snprintf(sentence, SENTENCE_SIZE, "failed to create isolated environment: %s", error);
        break;
    case STAGE_EXEC:
        if (failure->error == ENOENT)
            snprintf(sentence, SENTENCE_SIZE, "command not found: %s", name);
        else
            snprintf(sentence, SENTENCE_SIZE, "cannot execute %s: %s", name, error);
        break;
    case STAGE_ENTER:
        snprintf(sentence, SENTENCE_SIZE, "cannot enter %s: %s", name, error);
        break;
    case STAGE_TERMINAL:
        snprintf(sentence, SENTENCE_SIZE, "cannot open a terminal: %s", error);
        break;
    case STAGE_STOPPED:
        snprintf(sentence, SENTENCE_SIZE, "stopped while it was being started");
        break;
    }
}

/* What the lines of the record are put together with: what does not fit is left out, whole. */
struct text {
    char at[RECORD_SIZE];
    size_t length;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *text, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    size_t room = sizeof text->at - text->length;
    int length = vsnprintf(text->at + text->length, room, format, values);
    va_end(values);
    if (length > 0 && (size_t)length < room)
        text->length += (size_t)length;
}

static void add_failure(struct text *record, const struct outcome *outcome)
{
    char sentence[SENTENCE_SIZE];
    write_sentence(sentence, outcome->failure, outcome->subject);
    add(record, "outcome=failed\nstage=%s\nerrno=%d\nreason=%s\n", stages[outcome->failure->stage],
        outcome->failure->error, sentence);
}

/* A record lock ends with its process, whichever way that does: fcntl_locking(2). */
static bool is_locked(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool locked = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return locked;
}

void record_exit(int dir, const struct outcome *outcome, const char *stats, const char *server)
{
    struct text record = {.length = 0};
    add(&record, "version=1\n");
    if (outcome->kind == OUTCOME_FAILED)
        add_failure(&record, outcome);
    else if (outcome->kind == OUTCOME_EXITED)
        add(&record, "outcome=exited\ncode=%d\n", outcome->number);
    else
        add(&record, "outcome=signaled\nsignal=%d\n", outcome->number);
    if (outcome->stop)
        add(&record, "stop=%s\n", outcome->stop);
    if (outcome->kind != OUTCOME_FAILED)
        add(&record, "started_at=%" PRId64 "\n", outcome->started_at);
    add(&record, "ended_at=%" PRId64 "\nlog_bytes=%" PRIu64 "\n", outcome->ended_at, outcome->log_bytes);
    if (outcome->log_lost)
        add(&record, "log_lost=%" PRIu64 "\n", outcome->log_lost);
    if (outcome->outputs.state == OUTPUTS_TAKEN)
        add(&record, "outputs=%zu\n", outcome->outputs.bytes);
    if (outcome->outputs.state == OUTPUTS_BAD)
        add(&record, "outputs_error=%s\n", outcome->outputs.error);
    if (outcome->kind != OUTCOME_FAILED)
        add(&record, "stat.wall_usec=%" PRId64 "\n", outcome->lasted);
    add(&record, "%send=1\n", stats);

    /* The name is given only to what is on the disk, and is on the disk before the lock is free: fsync(2). */
    bool durable = !server || !is_locked(server);
    if (fill(dir, ".exit", record.at, record.length, durable) && renameat(dir, ".exit", dir, "exit") == 0 && durable)
        fsync(dir);
}

void report_started(int fd, pid_t init)
{
    char line[32];
    int length = snprintf(line, sizeof line, "started %d\n", (int)init);
    write_all(fd, line, (size_t)length); /* a server that is gone reads the files */
}

void report_failed(int fd, const struct failure *failure, const char *subject)
{
    char sentence[SENTENCE_SIZE], line[SENTENCE_SIZE + 64];
    write_sentence(sentence, failure, subject);
    int length =
        snprintf(line, sizeof line, "failed %s %d %s\n", stages[failure->stage], failure->error, sentence);
    write_all(fd, line, (size_t)length);
}

#include "cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

#include "die.h"
#include "kernel.h"

enum { SETTLE_ATTEMPTS = 1000, FILE_SIZE = 8192 };

#define LOOP_DEVICES "7:" /* MAJOR: of MAJOR:MINOR */

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* The only way into a group's file. A control file takes its value in one write. */
static int write_file(int dir, const char *name, const char *value)
{
    int fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, value, strlen(value));
    int error = errno;
    close(fd);
    errno = error;
    return written < 0 ? -1 : 0;
}

/* The file's beginning as a string; false and empty when there is none. */
static bool read_file(int dir, const char *name, char text[FILE_SIZE])
{
    size_t length = 0;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        ssize_t got;
        while ((got = read(fd, text + length, FILE_SIZE - 1 - length)) > 0)
            length += (size_t)got;
        close(fd);
    }
    text[length] = '\0';
    return fd >= 0;
}

/* FILE=VALUE */
static int write_limit(int dir, const char *limit)
{
    char name[256];
    size_t length = strcspn(limit, "=");
    memcpy(name, limit, length); /* spec.c let no longer name through */
    name[length] = '\0';
    return write_file(dir, name, limit + length + 1);
}

static void set_limit(int dir, const char *limit)
{
    if (write_limit(dir, limit) < 0)
        die(STAGE_CGROUP, "write %.*s", (int)strcspn(limit, "="), limit);
}

void groups_make(struct groups *groups, const struct spec *spec)
{
    groups->group = spec->group;
    for (size_t i = 0; i < spec->groups; i++) {
        const struct group *group = &spec->group[i];
        /* A group that exists already may have members and limits of its own: not ours. */
        if (mkdir(group->path, 0755) < 0)
            die(STAGE_CGROUP, "mkdir %s", group->path);
        groups->dir[i] = open(group->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        groups->made++;
        if (groups->dir[i] < 0)
            die(STAGE_CGROUP, "open %s", group->path);
        for (size_t j = 0; j < group->set.count; j++)
            set_limit(groups->dir[i], group->set.at[j]);
    }
}

int groups_v2(const struct groups *groups)
{
    for (size_t i = 0; i < groups->made; i++)
        if (groups->group[i].v2)
            return groups->dir[i];
    return -1;
}

void groups_enter(const struct groups *groups, pid_t pid)
{
    char text[16];
    snprintf(text, sizeof text, "%d", (int)pid);
    for (size_t i = 0; i < groups->made; i++)
        if (!groups->group[i].v2 && write_file(groups->dir[i], "cgroup.procs", text) < 0)
            die(STAGE_CGROUP, "enter %s", groups->group[i].path);
}

void groups_lift(const struct groups *groups)
{
    for (size_t i = 0; i < groups->made; i++)
        for (size_t j = 0; j < groups->group[i].lift.count; j++)
            write_limit(groups->dir[i], groups->group[i].lift.at[j]);
}

void groups_kill(const struct groups *groups)
{
    for (size_t i = 0; i < groups->made; i++)
        if (groups->group[i].kill)
            write_file(groups->dir[i], groups->group[i].kill, "1");
}

/* Kills the first process that the group lists. Its number may have gone to another process before pidfd_open(2), so
 * the list is read again: what is in the group and alive then is what the descriptor stands for. */
static bool kill_member(int dir)
{
    char members[FILE_SIZE];
    read_file(dir, "cgroup.procs", members);
    pid_t first = (pid_t)strtol(members, NULL, 10);
    if (!*members)
        return false;
    int pidfd = first > 0 && first != getpid() ? kernel_pidfd_open(first) : -1;
    if (pidfd >= 0) {
        read_file(dir, "cgroup.procs", members);
        if ((pid_t)strtol(members, NULL, 10) == first)
            kernel_pidfd_send_signal(pidfd, SIGKILL);
        close(pidfd);
    }
    return true;
}

/* The PID namespace has taken every process of the job with it; only what somebody else put into a group is left. */
void groups_settle(const struct groups *groups)
{
    for (int attempt = 0; attempt < SETTLE_ATTEMPTS; attempt++) {
        bool settled = true;
        for (size_t i = 0; i < groups->made; i++)
            settled &= !kill_member(groups->dir[i]);
        if (settled)
            return;
        groups_kill(groups);
        nap();
    }
}

/* The first number of the text, or the sum of those behind the word: a file may have a line for each device, or none yet.
 * Version 2 (whose lines have `word=number`) counts what a loop device does on its line, and what that makes the disk do
 * on the disk's; so the former is left out. The text is taken apart. False when it has no first number. */
static bool add_numbers(char *text, const char *key, uint64_t *sum)
{
    static const char separators[] = " =\t\n";
    bool wanted = !key, counted_twice = false, has_loops = strchr(text, '=');
    char *rest;
    *sum = 0;
    for (char *word = strtok_r(text, separators, &rest); word; word = strtok_r(NULL, separators, &rest)) {
        if (has_loops && strchr(word, ':'))
            counted_twice = strncmp(word, LOOP_DEVICES, strlen(LOOP_DEVICES)) == 0;
        if (wanted && !counted_twice && word[strspn(word, "0123456789")] == '\0') {
            *sum += strtoull(word, NULL, 10);
            if (!key)
                return true;
        }
        wanted = !key || strcmp(word, key) == 0;
    }
    return key;
}

static size_t read_stat(int dir, const char *stat, char *lines, size_t length, size_t size)
{
    char file[256], text[FILE_SIZE];
    uint64_t number;
    size_t name = strcspn(stat, "=");
    const char *key = strchr(stat + name + 1, ':');
    size_t end = strcspn(stat + name + 1, ":");
    memcpy(file, stat + name + 1, end); /* spec.c let no longer name through */
    file[end] = '\0';

    if (!read_file(dir, file, text) || !add_numbers(text, key ? key + 1 : NULL, &number))
        return length;
    int added = snprintf(lines + length, size - length, "stat.%.*s=%" PRIu64 "\n", (int)name, stat, number);
    return added > 0 && (size_t)added < size - length ? length + (size_t)added : length;
}

size_t groups_stat(const struct groups *groups, char *lines, size_t length, size_t size)
{
    for (size_t i = 0; i < groups->made; i++)
        for (size_t j = 0; j < groups->group[i].stat.count; j++)
            length = read_stat(groups->dir[i], groups->group[i].stat.at[j], lines, length, size);
    return length;
}

static int find_oom(const struct groups *groups)
{
    for (size_t i = 0; i < groups->made; i++)
        if (groups->group[i].oom)
            return (int)i;
    return -1;
}

int groups_watch_oom(const struct groups *groups)
{
    char order[32];
    int i = find_oom(groups);
    if (i < 0)
        return -1;
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int file = openat(groups->dir[i], groups->group[i].oom, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (event < 0 || file < 0)
        die(STAGE_CGROUP, "open %s", groups->group[i].oom);
    snprintf(order, sizeof order, "%d %d", event, file);
    if (write_file(groups->dir[i], "cgroup.event_control", order) < 0)
        die(STAGE_CGROUP, "write cgroup.event_control");
    close(file);
    return event;
}

bool groups_oom_killed(const struct groups *groups)
{
    char text[FILE_SIZE];
    uint64_t kills;
    int i = find_oom(groups);
    if (i < 0)
        return false;
    return read_file(groups->dir[i], groups->group[i].oom, text) && add_numbers(text, "oom_kill", &kills) && kills > 0;
}

/* A group whose last member has just died may be busy for a moment more: cgroups(7). */
void groups_remove(struct groups *groups)
{
    while (groups->made > 0) {
        const char *path = groups->group[--groups->made].path;
        close(groups->dir[groups->made]);
        for (int attempt = 0; rmdir(path) < 0 && errno == EBUSY && attempt < SETTLE_ATTEMPTS; attempt++)
            nap();
    }
}

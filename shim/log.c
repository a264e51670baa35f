#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "die.h"
#include "kernel.h"

void log_open(struct log *log, int dir)
{
    log->fd = openat(dir, "log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (log->fd < 0)
        die(STAGE_LOG, "open log");
    index_open(&log->index, dir);
}

static off_t size_of(const struct log *log)
{
    struct stat what;
    return fstat(log->fd, &what) < 0 ? 0 : what.st_size;
}

/* A line of ours is written whole or not at all, or it would be mistaken for output. */
static bool write_notice(struct log *log, const char *notice, int length)
{
    if (!index_mark(&log->index, log->fd, STREAM_ERRORS))
        return false;
    off_t before = size_of(log);
    long written = RETRY(write(log->fd, notice, (size_t)length));
    if (written > 0 && written < length && ftruncate(log->fd, before) < 0)
        return false;
    return written == length;
}

static bool close_gap(struct log *log)
{
    char notice[256];
    int length =
        snprintf(notice, sizeof notice, "\njoblet: %" PRIu64 " bytes of output lost here: ", log->gap);
    char *error = notice + length;
    length += snprintf(error, sizeof notice - (size_t)length, "%s\n",
                       log->error ? strerror(log->error) : "log limit reached");
    *error = (char)tolower((unsigned char)*error);
    if (!write_notice(log, notice, length))
        return false;
    log->gap = 0;
    return true;
}

/* For who follows the log: how much is lost is known at the end only. */
static void announce_limit(struct log *log)
{
    char notice[128];
    int length = snprintf(notice, sizeof notice, "\njoblet: output beyond the limit of %" PRIu64 " bytes is not kept\n",
                          log->limit);
    write_notice(log, notice, length);
}

static void lose(struct log *log, int error, size_t length)
{
    if (log->gap == 0)
        log->error = error;
    log->gap += length;
    log->lost += length;
}

void log_write(struct log *log, enum stream stream, const char *bytes, size_t length)
{
    uint64_t room = log->limit ? log->limit - log->kept : UINT64_MAX;
    if (log->gap && (room == 0 || !close_gap(log))) {
        lose(log, 0, length);
        return;
    }
    if (room > 0 && !index_mark(&log->index, log->fd, stream)) {
        lose(log, errno, length);
        return;
    }
    while (length > 0 && room > 0) {
        ssize_t written = RETRY(write(log->fd, bytes, length < room ? length : (size_t)room));
        if (written <= 0) {
            lose(log, errno, length);
            return;
        }
        bytes += written;
        length -= (size_t)written;
        room -= (uint64_t)written;
        log->kept += (uint64_t)written;
    }
    if (length > 0) {
        announce_limit(log);
        lose(log, 0, length);
    }
}

uint64_t log_finish(struct log *log)
{
    if (log->gap)
        close_gap(log);
    uint64_t length = (uint64_t)size_of(log);
    if (length > 0)
        fdatasync(log->fd);
    if (length > 0 && log->index.apart)
        fdatasync(log->index.fd); /* without it nobody could tell what is whose */
    return length;
}

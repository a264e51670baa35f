#include "index.h"

#include <errno.h>
#include <sys/stat.h>

#include "die.h"
#include "kernel.h"
#include "record.h"

enum {
    RESOLUTION_NS = 1000000, /* one record for all that comes within it */
    FREE_SIZE = 256 << 10,   /* bytes of index that a log of any length may have; more as it is long */
};

void index_open(struct index *index, int dir)
{
    index->fd = openat(dir, "index", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (index->fd < 0)
        die(STAGE_LOG, "open index");
}

bool index_mark(struct index *index, int log, enum stream stream)
{
    struct stat what;
    uint64_t bit = stream == STREAM_ERRORS ? MARK_ERRORS : 0;
    bool needed = index->apart && (index->count == 0 || (index->last.offset & MARK_ERRORS) != bit);
    int64_t now = now_ns(), passed = now - index->last.at;
    /* A clock that was set back is believed. */
    if (!needed && index->count > 0 && passed >= 0 && passed < RESOLUTION_NS)
        return true;
    if (fstat(log, &what) < 0)
        return !needed;
    uint64_t end = (uint64_t)what.st_size;
    struct mark mark = {.at = now, .offset = end | bit};
    /* Nothing was written since: the log was full, or the disk. Offsets only grow. */
    bool again = index->count > 0 && end == (index->last.offset & ~MARK_ERRORS);
    uint64_t place = (again ? index->count - 1 : index->count) * sizeof mark;
    if (!needed && place + sizeof mark > FREE_SIZE + end)
        return true;
    /* Not appended: a torn record is written over by the next one. */
    errno = ENOSPC; /* what a short write means: write(2) */
    if (RETRY(pwrite(index->fd, &mark, sizeof mark, (off_t)place)) != sizeof mark)
        return !needed;
    index->count = place / sizeof mark + 1;
    index->last = mark;
    return true;
}

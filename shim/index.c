#include "index.h"

#include <stdbool.h>
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

void index_mark(struct index *index, int log)
{
    struct stat what;
    int64_t now = now_ns(), passed = now - index->last.at;
    /* A clock that was set back is believed. */
    if ((index->count > 0 && passed >= 0 && passed < RESOLUTION_NS) || fstat(log, &what) < 0)
        return;
    struct mark mark = {.at = now, .offset = (uint64_t)what.st_size};
    /* Nothing was written since: the log was full, or the disk. Offsets only grow. */
    bool again = index->count > 0 && mark.offset == index->last.offset;
    uint64_t place = (again ? index->count - 1 : index->count) * sizeof mark;
    if (place + sizeof mark > FREE_SIZE + mark.offset)
        return;
    /* Not appended: a torn record is written over by the next one. */
    if (RETRY(pwrite(index->fd, &mark, sizeof mark, (off_t)place)) != sizeof mark)
        return;
    index->count = place / sizeof mark + 1;
    index->last = mark;
}

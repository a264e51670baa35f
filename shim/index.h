/* When the output came, and by which stream: beside the log, so that each of its bytes has a time. */
#ifndef JOBLET_INDEX_H
#define JOBLET_INDEX_H

#include <stdbool.h>
#include <stdint.h>

enum stream { STREAM_OUTPUT, STREAM_ERRORS };

/* A record of the file: bytes of the log from `offset` on came at `at`, up to the next record's. */
struct mark {
    int64_t at;      /* CLOCK_REALTIME, nanoseconds */
    uint64_t offset; /* and MARK_ERRORS, when they are of STREAM_ERRORS */
};

#define MARK_ERRORS (UINT64_C(1) << 63)

struct index {
    int fd;
    bool apart;       /* the records tell of every change of stream */
    uint64_t count;   /* records in the file */
    struct mark last; /* one of them, when there are any */
};

/* Dies at STAGE_LOG. */
void index_open(struct index *, int dir);
/* What is about to be written at the end of the log has come now, by this stream. Before the write, so that who sees the
 * bytes finds their time. False, with errno: the file has no room to tell that they are of another stream than those
 * before; they must not be written. That bytes of the same stream have the time of those before them is no failure. */
bool index_mark(struct index *, int log, enum stream);

#endif

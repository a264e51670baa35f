/* When the output came: beside the log, so that each of its bytes has a time. */
#ifndef JOBLET_INDEX_H
#define JOBLET_INDEX_H

#include <stdint.h>

/* A record of the file: bytes of the log from `offset` on came at `at`, up to the next record's. */
struct mark {
    int64_t at; /* CLOCK_REALTIME, nanoseconds */
    uint64_t offset;
};

struct index {
    int fd;
    uint64_t count;   /* records in the file */
    struct mark last; /* one of them, when there are any */
};

/* Dies at STAGE_LOG. */
void index_open(struct index *, int dir);
/* What is about to be written at the end of the log has come now. Before the write, so that who sees the bytes finds
 * their time. Never fails: bytes whose record finds no room have the time of those before them. */
void index_mark(struct index *, int log);

#endif

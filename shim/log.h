/* The job's log: what came out of the pipe, byte for byte, or an honest gap. */
#ifndef JOBLET_LOG_H
#define JOBLET_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "index.h"

struct log {
    int fd;
    struct index index;
    uint64_t limit; /* bytes of output to keep at most; 0: as many as there is room for */
    uint64_t kept;  /* bytes of output in the log, never over the limit */
    int error;      /* of the write that opened the present gap; 0: the limit did */
    uint64_t gap;   /* bytes lost since the log was last written to; 0: there is no gap */
    uint64_t lost;  /* bytes lost in all */
};

/* Dies at STAGE_LOG. */
void log_open(struct log *, int dir);
/* Never fails: what cannot be written is counted. Lines of our own are of STREAM_ERRORS. */
void log_write(struct log *, enum stream, const char *bytes, size_t length);
/* Says what was lost and puts the log on the disk; its length. */
uint64_t log_finish(struct log *);

#endif

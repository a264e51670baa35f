/* What the job gives out: a file that it has left in its work directory. */
#ifndef JOBLET_OUTPUTS_H
#define JOBLET_OUTPUTS_H

#include <stddef.h>

enum { OUTPUTS_MAX = 65536 };

struct outputs {
    enum {
        OUTPUTS_NONE,  /* the job made no such file */
        OUTPUTS_TAKEN, /* so many bytes */
        OUTPUTS_BAD,   /* nothing was kept, and why */
    } state;
    size_t bytes;
    char error[64];
};

/* Copies the file of that name, once the job has ended, from its work directory to the job's own; needs a buffer of one byte
 * more than OUTPUTS_MAX. */
struct outputs outputs_take(int work, const char *name, int dir, char *buffer);

#endif

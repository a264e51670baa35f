/* A command's terminal: a pseudo-terminal of the job's own devpts. */
#ifndef JOBLET_TERMINAL_H
#define JOBLET_TERMINAL_H

#include <stdint.h>

struct terminal {
    int master; /* for the monitor or the server; does not wait */
    int slave;  /* for the command */
};

/* In the job's root, as the job, whose it then is. Dies at STAGE_TERMINAL. */
struct terminal terminal_open(uint32_t rows, uint32_t columns);

#endif

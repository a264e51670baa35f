/* How the server wants the job to be stopped: the file `stop` of PROTOCOL.md. */
#ifndef JOBLET_STOP_H
#define JOBLET_STOP_H

#include <stdbool.h>
#include <stdint.h>

struct stop {
    int signal;        /* to begin with */
    uint32_t grace_ms; /* until SIGKILL; 0: at once */
};

/* What the job's directory says; SIGTERM and this grace when it says nothing that can be read. */
struct stop stop_read(int dir, uint32_t grace_ms);
bool stop_is_same(struct stop, struct stop);

#endif

/* The job's parent: starts it, drains its output, ends it, and says how it ended. */
#ifndef JOBLET_MONITOR_H
#define JOBLET_MONITOR_H

#include <stdint.h>
#include <sys/types.h>

#include "cgroup.h"
#include "input.h"
#include "log.h"
#include "record.h"
#include "spec.h"

/* The descriptors that the server starts the shim with: PROTOCOL.md. */
enum { FD_SPEC = 3, FD_DIR = 4, FD_REPORT = 5, FD_LOCK = 6 };

struct monitor {
    struct spec spec;
    struct groups groups;
    struct log log;
    int signals;  /* signalfd */
    int output;   /* the read end of the job's output, -1 once it has ended */
    int errors;   /* of its stderr, -1 when that goes the same way */
    char *buffer; /* between the two */
    struct input input;
    pid_t init;
    int pidfd;  /* of the init */
    int oom;    /* eventfd of a v1 group that ran out of memory, -1 where the kernel ends the whole group itself */
    int socket; /* to the init */
    int passed; /* the descriptor that came with its last message; -1: none */
    int work;   /* the work directory's file system, -1 where it is none of its own */
    struct outcome outcome;
};

/* As PROTOCOL.md's "Signals to the monitor": dies at STAGE_LOG. */
void monitor_signals(struct monitor *);
/* The job's groups, with their limits; dies at STAGE_CGROUP. */
void monitor_groups(struct monitor *);
/* From clone3 to the command's execve; dies at the stage that failed. */
void monitor_launch(struct monitor *);
/* Until the init has died. */
void monitor_watch(struct monitor *);
/* All that is left to do for a job that is over. */
void monitor_conclude(struct monitor *);
/* For die_through: a launch that failed is concluded too. */
void monitor_fail(const struct failure *, void *monitor);

#endif

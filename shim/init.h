/* Process 1 of the job, and what it and the monitor say to each other. */
#ifndef JOBLET_INIT_H
#define JOBLET_INIT_H

#include <stdint.h>

#include "die.h"
#include "spec.h"

/* From the init to the monitor, one packet each. From the monitor to the init: one byte, for "go on". */
struct message {
    enum {
        MESSAGE_FAILED,   /* with the failure; the init is gone */
        MESSAGE_UNMAPPED, /* waits for its ids */
        MESSAGE_TERMINAL, /* with the master of the command's terminal */
        MESSAGE_STARTED,  /* the command's execve has succeeded */
        MESSAGE_ENDED,    /* with the command's wait status */
    } kind;
    int status;
    int64_t at; /* STARTED and ENDED: when, CLOCK_MONOTONIC in microseconds; the monitor may read of it late */
    struct failure failure;
};

/* The descriptors that the init has from the monitor. */
struct handed {
    int monitor;                      /* the socket to it */
    int output, errors;               /* the write ends of stdout and stderr, which may be of one pipe; -1: there is a terminal */
    int input;                        /* the read end of the command's stdin; -1: it has none, or a terminal */
    int exec;                         /* the socket on which other commands are asked for */
    int disk;                         /* the work directory's file system, not mounted yet; -1: it is none of its own */
    int idmap[SPEC_WRITABLE_MAX + 1]; /* for each writable path, then the shared one, the user namespace that maps its owner */
    size_t idmaps;
};

/* Runs the job, in the new namespaces, from the job's directory. */
_Noreturn void init_run(const struct spec *, const struct handed *);

#endif

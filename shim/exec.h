/* Other commands in a running job, each for a connection of the server: PROTOCOL.md, "Commands in a running job". */
#ifndef JOBLET_EXEC_H
#define JOBLET_EXEC_H

#include <stddef.h>
#include <sys/types.h>

enum { SESSIONS_MAX = 16 };

/* One connection and its command. Free without either: a command that nobody waits for any more is still to be reaped. */
struct session {
    int socket; /* -1: the server has closed it */
    pid_t pid;  /* 0: not started yet */
};

struct sessions {
    int listener;
    struct session at[SESSIONS_MAX];
};

/* The monitor's part: the socket `exec` in its working directory, the job's; dies at STAGE_LOG. */
int exec_listen(void);

/* The init's part. What it starts has all that the init has: namespaces, groups, limits, filters. */
void exec_begin(struct sessions *, int listener);
/* Waits until the descriptor of signals can be read, or a command was asked for or given up. */
void exec_wait(struct sessions *, int signals);
/* One of the init's children has ended. */
void exec_reaped(struct sessions *, pid_t, int status);

#endif

/* From a process to a command. */
#ifndef JOBLET_EXECUTE_H
#define JOBLET_EXECUTE_H

#include "spec.h"

/* All signals to their default action, none blocked. By system call, for the C library keeps 32 to 34 from its users, and
 * posix_spawn in another one ignores those. */
void reset_signals(void);

/* As execvp(3), with the PATH of `env`, but no shell for what is not executable: returns errno. Both lists end with NULL. */
int search_and_execute(const struct strings *arg, const struct strings *env);

#endif

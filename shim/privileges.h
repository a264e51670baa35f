/* What the job may not do: credentials(7), capabilities(7), seccomp(2). */
#ifndef JOBLET_PRIVILEGES_H
#define JOBLET_PRIVILEGES_H

#include <stdint.h>

/* Root of the job's user namespace, without a capability there and no way to one, with at most so many open files. */
void drop_privileges(uint32_t open_files);

/* For this process and all it starts, for ever. */
void filter_system_calls(void);

#endif

/* What the job may not do: credentials(7), capabilities(7), seccomp(2). */
#ifndef JOBLET_PRIVILEGES_H
#define JOBLET_PRIVILEGES_H

/* Root of the job's user namespace, without a capability there and no way to one. */
void drop_privileges(void);

/* For this process and all it starts, for ever. */
void filter_system_calls(void);

#endif

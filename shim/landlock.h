/* Once more, from another part of the kernel, what the mounts and the namespaces say: landlock(7). */
#ifndef JOBLET_LANDLOCK_H
#define JOBLET_LANDLOCK_H

#include "spec.h"

/* For this process and all it starts: changes to files only where the job may write; no signal and no connection to an
 * abstract unix socket outside the job. What the kernel does not know of this is left out, for the rest stands without
 * it. Needs no_new_privs. */
void confine_to_writable(const struct spec *);

#endif

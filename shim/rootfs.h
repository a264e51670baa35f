/* What the job sees of the file system: mount_namespaces(7), pivot_root(2). */
#ifndef JOBLET_ROOTFS_H
#define JOBLET_ROOTFS_H

#include "spec.h"

/* In the init, whose working directory is the job's directory: builds the job's root and goes there, to its work
 * directory. Nothing of the old root is reachable then, except through descriptors that are still open. The descriptors
 * from `idmap` on are the user namespaces of the writable paths and the shared one, `disk` is the work directory's file
 * system, where the spec asks for it; they are closed. */
void enter_rootfs(const struct spec *, int idmap, int disk);

#endif

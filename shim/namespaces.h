/* The job's namespaces: namespaces(7), user_namespaces(7). */
#ifndef JOBLET_NAMESPACES_H
#define JOBLET_NAMESPACES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* fork(2) into new pid, mount, uts and ipc namespaces and, unless it is -1, the v2 group: 0 in the child. They belong to
 * the host's user namespace, so that root of the job's own one, made later, has no power over them. */
pid_t clone_init(int group, int *pidfd);

/* In the init: a cgroup namespace whose root is the job's groups, and the host name. */
void name_host(const char *hostname);
/* In the init: the job's user namespace, without any id until the monitor has mapped them, and owned by the job's own
 * user: whatever the kernel counts by user (inotify instances, queued signals, locked memory) is counted with the owner
 * too, and were that root, one job could use up the host's and every other job's. */
void enter_user_namespace(uint32_t owner);
/* In the monitor: a user namespace for mounts on which owner and group of the path are root of the job, and nobody else is
 * anybody: mount_setattr(2), "ID-mapped mounts". What root owns is never made writable, nor, unless nobody else can come
 * to the path, where the host would run a setuid program that the job has left. Dies at STAGE_ROOTFS. */
int make_idmap(const char *path, uint32_t base, bool secluded);
/* In the monitor: inside's 0.. is the host's base.., for users and groups. */
void map_ids(pid_t, uint32_t base, uint32_t count);

#endif

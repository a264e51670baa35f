/* The job's control groups: cgroups(7). The limits are the server's business, these are its hands. */
#ifndef JOBLET_CGROUP_H
#define JOBLET_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "spec.h"

struct groups {
    const struct group *group;
    int dir[SPEC_GROUPS_MAX];
    size_t made; /* the first so many exist and their directories are open: what there is to remove */
};

/* Make the groups and set their limits; die at STAGE_CGROUP. */
void groups_make(struct groups *, const struct spec *);
/* The directory of the v2 group, for CLONE_INTO_CGROUP, or -1. */
int groups_v2(const struct groups *);
/* Move the process into each v1 group; dies at STAGE_CGROUP. */
void groups_enter(const struct groups *, pid_t);

/* An eventfd that is readable once memory has run out in a v1 group, where the kernel kills one process only; -1 where
 * there is no such group. Dies at STAGE_CGROUP. */
int groups_watch_oom(const struct groups *);
/* Whether the kernel has killed for want of memory in the group that groups_watch_oom watches. */
bool groups_oom_killed(const struct groups *);

/* Take back the limits that would hold up the job's end: a process that waits for its I/O does not die before it is done. */
void groups_lift(const struct groups *);
/* Kill what has a file for it. */
void groups_kill(const struct groups *);
/* Wait until no group has a member, and kill what is left over. */
void groups_settle(const struct groups *);
/* Append `stat.NAME=NUMBER` lines; the length after that. */
size_t groups_stat(const struct groups *, char *lines, size_t length, size_t size);
/* Remove the groups. */
void groups_remove(struct groups *);

#endif

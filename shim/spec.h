/* The job's orders, as PROTOCOL.md lists them. */
#ifndef JOBLET_SPEC_H
#define JOBLET_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPEC_BYTES_MAX = 16 << 20,
    SPEC_ENTRIES_MAX = 1 << 18,
    SPEC_GROUPS_MAX = 16,
    SPEC_WRITABLE_MAX = 32,
    SPEC_DETAIL_SIZE = 96,
};

/* Of PROTOCOL.md: what the server has to speak, and says it does. */
#define PROTOCOL_VERSION "5"

/* Where the job sees the directory that it shares with the others of its workflow. */
#define SHARED_PLACE "/workflow"

struct strings {
    char **at; /* the array ends with NULL only where execve(2) needs it: env and arg */
    size_t count;
};

struct group {
    const char *path;
    const char *kill;
    const char *oom;     /* v1: the file whose event says that memory ran out */
    struct strings set;  /* FILE=VALUE */
    struct strings lift; /* FILE=VALUE, what takes limits back that would hold up its end */
    struct strings stat; /* NAME=FILE[:KEY] */
    bool v2;
};

struct spec {
    const char *id, *hostname, *work;
    const char *cwd;     /* where the command starts; NULL: in the work directory */
    const char *outputs; /* the file in the work directory to keep; NULL: none */
    const char *shared;  /* the host path shown at SHARED_PLACE; NULL: none */
    const char *server;  /* the host path of what a server locks while it lives; NULL: there is none */
    uint32_t uid_base, id_count, grace_ms, open_files;
    uint64_t tmp_bytes, log_limit; /* log_limit 0: as much as there is room for */
    uint32_t rows, columns; /* of the command's terminal; 0: it has none */
    bool input;             /* the command's stdin is a pipe, not empty */
    bool disk;          /* the work directory is a file system in `disk`, not `work/` */
    bool apart;         /* the log tells stdout and stderr apart */
    struct strings ro, rw, mask, env, arg;
    struct group group[SPEC_GROUPS_MAX];
    size_t groups;
};

/* Fills the spec with pointers into the text, which must outlive it. Pure but for the memory of the lists. False: the
 * text is no valid spec and detail says why. */
bool spec_parse(struct spec *, char *text, size_t length, char detail[SPEC_DETAIL_SIZE]);

/* Reads and parses what the descriptor holds, and closes it; dies at STAGE_SPEC. */
void spec_read(struct spec *, int fd, const char *id);

#endif

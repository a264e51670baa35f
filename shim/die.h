/* The one way to give up. */
#ifndef JOBLET_DIE_H
#define JOBLET_DIE_H

/* As in PROTOCOL.md, in order. */
enum stage {
    STAGE_SPEC,
    STAGE_LOG,
    STAGE_CGROUP,
    STAGE_NAMESPACE,
    STAGE_ROOTFS,
    STAGE_PRIVILEGES,
    STAGE_EXEC,
    STAGE_ENTER, /* of the stage `exec` too: the directory to start in */
    STAGE_TERMINAL,
    STAGE_STOPPED, /* by the server, before the command ran */
};

struct failure {
    enum stage stage;
    int error;      /* errno */
    char call[128]; /* the call that failed; for STAGE_SPEC what is wrong with the spec */
};

/* What this process does about its failure: the monitor concludes the job, the init tells the monitor. */
typedef void last_words(const struct failure *, void *context);
void die_through(last_words *, void *context);

/* Fails at the stage, with errno, naming the call as by printf. */
_Noreturn void die(enum stage, const char *call, ...) __attribute__((format(printf, 2, 3)));

#endif

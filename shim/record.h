/* What stays of the job: the files in its directory, and the line to the server. */
#ifndef JOBLET_RECORD_H
#define JOBLET_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cgroup.h"
#include "die.h"
#include "outputs.h"

struct outcome {
    enum { OUTCOME_FAILED, OUTCOME_EXITED, OUTCOME_SIGNALED } kind;
    int number; /* exit status or signal */
    const struct failure *failure;
    const char *subject; /* argv[0] or the directory to start in, for the failure's sentence */
    const char *stop;    /* `term`, `kill` or NULL */
    int64_t started_at, ended_at;
    int64_t began, lasted; /* of the command, CLOCK_MONOTONIC in microseconds */
    uint64_t log_bytes, log_lost;
    struct outputs outputs;
};

enum { SENTENCE_SIZE = 512, STATS_SIZE = 6144, RECORD_SIZE = 8192 };

int64_t now_ns(void);
int64_t monotonic_us(void);

/* Says who watches the job; dies at STAGE_LOG. */
void record_monitor(int dir);
/* Makes room for the two records below, so that a disk that the job has filled has it still; dies at STAGE_LOG. */
void record_reserve(int dir);
/* The command runs. */
void record_started(int dir, pid_t init, const struct outcome *);
/* What the job gave out, durably but for its name, which record_exit sees to. False, with errno: it could not be written. */
bool record_outputs(int dir, const char *bytes, size_t length);
/* The job has ended, durably. */
/* On the disk, unless a server lives: that stores what it says for many jobs at once, before anyone is told. `server` is
 * spec.server. */
void record_exit(int dir, const struct outcome *, const char *stats, const char *server);

/* The failure for the user; the log's version names the call. */
void write_sentence(char sentence[SENTENCE_SIZE], const struct failure *, const char *subject);
void report_started(int fd, pid_t init);
void report_failed(int fd, const struct failure *, const char *subject);

#endif

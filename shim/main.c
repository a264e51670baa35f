/* joblet-shim: runs one job for the server and records how it ended. See PROTOCOL.md. */
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "monitor.h"

/* Until these are what they should be there is nobody to tell. */
static void check_descriptors(int argc)
{
    struct stat dir;
    static const char usage[] = "joblet-shim is started by joblet: see PROTOCOL.md\n";
    bool good = argc == 2 && fstat(FD_DIR, &dir) == 0 && S_ISDIR(dir.st_mode);
    for (int fd = FD_SPEC; fd <= FD_LOCK; fd++)
        good = good && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        good = good && fcntl(fd, F_GETFD) >= 0;
    if (good)
        return;
    if (write(STDERR_FILENO, usage, sizeof usage - 1) < 0)
        _exit(2);
    _exit(2);
}

/* A lock that the server holds through this very descriptor can be had again: flock(2). */
static void check_lock(void)
{
    if (flock(FD_LOCK, LOCK_EX | LOCK_NB) < 0)
        die(STAGE_LOG, "flock lock");
}

int main(int argc, char **argv)
{
    static struct monitor monitor = {.log.fd = -1, .signals = -1, .output = -1, .errors = -1,
                                     .input = {.fifo = -1, .target = -1},
                                     .pidfd = -1,  .oom = -1,     .socket = -1, .work = -1};

    check_descriptors(argc);
    die_through(monitor_fail, &monitor);
    check_lock();
    record_monitor(FD_DIR);
    monitor_signals(&monitor);
    log_open(&monitor.log, FD_DIR);
    record_reserve(FD_DIR);
    spec_read(&monitor.spec, FD_SPEC, argv[1]);
    monitor_groups(&monitor);
    monitor_launch(&monitor);
    monitor_watch(&monitor);
    monitor_conclude(&monitor);
    return 0;
}

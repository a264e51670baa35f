#include "stop.h"

#include <signal.h>
#include <stdio.h>

#include "kernel.h"

enum { STOP_SIZE = 64, SIGNAL_MAX = 64 };

struct stop stop_read(int dir, uint32_t grace_ms)
{
    struct stop usual = {.signal = SIGTERM, .grace_ms = grace_ms};
    char text[STOP_SIZE];
    unsigned signal_number, grace;
    int file = openat(dir, "stop", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return usual;
    long length = RETRY(read(file, text, sizeof text - 1));
    close(file);
    if (length <= 0)
        return usual;
    text[length] = '\0';
    if (sscanf(text, "signal=%2u\ngrace_ms=%10u\n", &signal_number, &grace) != 2)
        return usual;
    if (signal_number < 1 || signal_number > SIGNAL_MAX || grace > INT32_MAX)
        return usual;
    return (struct stop){.signal = (int)signal_number, .grace_ms = grace};
}

bool stop_is_same(struct stop one, struct stop other)
{
    return one.signal == other.signal && one.grace_ms == other.grace_ms;
}

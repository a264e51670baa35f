#include "die.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static last_words *say;
static void *say_context;

void die_through(last_words *words, void *context)
{
    say = words;
    say_context = context;
}

_Noreturn void die(enum stage stage, const char *call, ...)
{
    struct failure failure = {.stage = stage, .error = errno};
    va_list values;
    va_start(values, call);
    vsnprintf(failure.call, sizeof failure.call, call, values);
    va_end(values);

    last_words *words = say;
    say = NULL; /* failing to say so must not say so again */
    if (words)
        words(&failure, say_context);
    _exit(1);
}

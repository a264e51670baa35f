#include "execute.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"

void reset_signals(void)
{
    static const uint64_t default_action[4], none;
    for (int sig = 1; sig <= 64; sig++)
        syscall(SYS_rt_sigaction, sig, default_action, NULL, sizeof none); /* two cannot be changed, and need not */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

static const char *find_environment(const struct strings *env, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < env->count; i++)
        if (strncmp(env->at[i], name, length) == 0 && env->at[i][length] == '=')
            return env->at[i] + length + 1;
    return NULL;
}

int search_and_execute(const struct strings *arg, const struct strings *env)
{
    const char *command = arg->at[0];
    if (!*command)
        return ENOENT;
    if (strchr(command, '/')) {
        execve(command, arg->at, env->at);
        return errno;
    }
    const char *path = find_environment(env, "PATH");
    if (!path)
        path = "/usr/local/bin:/usr/bin:/bin";
    char candidate[4096];
    bool refused = false;
    for (const char *end; path; path = *end ? end + 1 : NULL) {
        end = path + strcspn(path, ":");
        int length = (int)(end - path);
        if (snprintf(candidate, sizeof candidate, "%.*s/%s", length, length ? path : ".", command) >=
            (int)sizeof candidate)
            continue;
        execve(candidate, arg->at, env->at);
        if (errno == EACCES)
            refused = true;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return refused ? EACCES : ENOENT;
}

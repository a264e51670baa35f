/* Runs a program instruction by instruction, and counts those of each of its processes up to its second exec.

       step FILE PROGRAM ARGUMENT...

   writes a line to FILE for each process, in order of their births: how many instructions in user mode it has executed
   since the first exec, when one of them execs. From there on all go on unobserved. Exits as PROGRAM does. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 16 };

static struct {
    pid_t pid;
    unsigned long count;
} tasks[MOST];
static int known;

static void die(const char *what)
{
    perror(what);
    exit(125);
}

static int find(pid_t pid)
{
    for (int i = 0; i < known; i++)
        if (tasks[i].pid == pid)
            return i;
    if (known == MOST) {
        errno = EAGAIN;
        die("processes");
    }
    tasks[known].pid = pid;
    return known++;
}

/* Addresses that vary would vary how much memcpy(3) and its like have to align. */
static pid_t start(char **argv)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        if (personality(ADDR_NO_RANDOMIZE) < 0 || ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 || raise(SIGSTOP) != 0)
            die("ptrace");
        execv(argv[0], argv);
        die(argv[0]);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
        die("wait for the program");
    long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, pid, 0, options) < 0 || ptrace(PTRACE_CONT, pid, 0, 0) < 0)
        die("ptrace");
    if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
        die(argv[0]);
    return pid;
}

static void save(const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        die(path);
    for (int i = 0; i < known; i++)
        fprintf(file, "%lu\n", tasks[i].count);
    if (fclose(file) != 0)
        die(path);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    pid_t first = start(argv + 2);
    bool counting = true;
    int result = 125;
    find(first);
    if (ptrace(PTRACE_SINGLESTEP, first, 0, 0) < 0)
        die("ptrace");
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == ECHILD)
            return result;
        if (pid < 0)
            die("waitpid");
        if (!WIFSTOPPED(status)) {
            if (pid == first)
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int event = status >> 16, number = WSTOPSIG(status);
        bool fresh = counting && tasks[find(pid)].count == 0 && number == SIGSTOP; /* ptrace(2): a child begins so */
        if (counting && number == SIGTRAP && event == 0)
            tasks[find(pid)].count++;
        if (counting && event == PTRACE_EVENT_EXEC) {
            counting = false;
            save(argv[1]);
        }
        long deliver = number == SIGTRAP || fresh ? 0 : number;
        if (ptrace(counting ? PTRACE_SINGLESTEP : PTRACE_DETACH, pid, 0, deliver) < 0 && errno != ESRCH)
            die("ptrace");
    }
}

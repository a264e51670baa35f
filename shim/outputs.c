#include "outputs.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"
#include "record.h"

static struct outputs fail(int error)
{
    struct outputs bad = {.state = OUTPUTS_BAD};
    /* What openat2(2) says of a link, and of a socket. */
    const char *text = error == ELOOP || error == ENXIO ? "not a regular file"
                       : error == EFBIG                 ? "larger than 65536 bytes"
                                                        : strerror(error);
    snprintf(bad.error, sizeof bad.error, "%s", text);
    *bad.error = (char)tolower((unsigned char)*bad.error);
    return bad;
}

/* The name is the job's to make anything of: a link to the host's files, a pipe that nobody writes to, a file without an
 * end. It is opened as it lies there, without waiting, and looked at before it is read. */
static int open_regular(int work, const char *name)
{
    struct stat what;
    struct kernel_open_how how = {
        .flags = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    int file = kernel_openat2(work, name, &how);
    if (file < 0 || (fstat(file, &what) == 0 && S_ISREG(what.st_mode)))
        return file;
    close(file);
    errno = ELOOP;
    return -1;
}

/* A process outside that the job has passed the file to may still be writing: what has been read is what counts. */
static ssize_t read_whole(int file, char *buffer)
{
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length <= OUTPUTS_MAX; length += (size_t)got)
        if ((got = RETRY(read(file, buffer + length, OUTPUTS_MAX + 1 - length))) < 0)
            return -1;
    errno = EFBIG;
    return length > OUTPUTS_MAX ? -1 : (ssize_t)length;
}

struct outputs outputs_take(int work, const char *name, int dir, char *buffer)
{
    int file = open_regular(work, name);
    if (file < 0)
        return errno == ENOENT ? (struct outputs){.state = OUTPUTS_NONE} : fail(errno);
    ssize_t length = read_whole(file, buffer);
    int error = errno;
    close(file);
    if (length < 0)
        return fail(error);
    if (!record_outputs(dir, buffer, (size_t)length))
        return fail(errno);
    return (struct outputs){.state = OUTPUTS_TAKEN, .bytes = (size_t)length};
}

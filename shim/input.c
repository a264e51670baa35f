#include "input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>

#include "die.h"
#include "kernel.h"

enum { BUFFER_SIZE = 64 << 10 };

void input_open(struct input *input, int dir)
{
    input->buffer = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (input->buffer == MAP_FAILED)
        die(STAGE_LOG, "mmap");
    if (mkfifoat(dir, "input", 0600) < 0)
        die(STAGE_LOG, "mkfifo input");
    /* For writing too, so that it does not end with the server that writes to it: fifo(7). */
    input->fifo = openat(dir, "input", O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (input->fifo < 0)
        die(STAGE_LOG, "open input");
}

int input_make_pipe(struct input *input, uint32_t owner)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        die(STAGE_LOG, "pipe2");
    if (fchown(ends[0], owner, owner) < 0)
        die(STAGE_LOG, "fchown");
    if (fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0)
        die(STAGE_LOG, "fcntl O_NONBLOCK");
    input->target = ends[1];
    return ends[0];
}

void input_use_terminal(struct input *input, int master)
{
    input->terminal = true;
    input->target = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (input->target < 0)
        die(STAGE_LOG, "dup");
}

/* Who writes to the FIFO learns it from that. */
static void stop(struct input *input)
{
    close(input->fifo);
    close(input->target);
    input->fifo = input->target = -1;
    input->length = 0;
}

/* The first frame's header; false while it has not wholly come, or its payload. */
static bool first_frame(const struct input *input, struct frame *frame)
{
    if (input->length < sizeof *frame)
        return false;
    memcpy(frame, input->buffer + input->begin, sizeof *frame);
    return input->length >= sizeof *frame + frame->length;
}

struct pollfd input_awaits_frames(const struct input *input)
{
    struct frame frame;
    return (struct pollfd){.fd = first_frame(input, &frame) ? -1 : input->fifo, .events = POLLIN};
}

/* A pipe without a frame for it is asked for its end: POLLERR says that nobody can read it any more: pipe(7). */
struct pollfd input_awaits_target(const struct input *input)
{
    struct frame frame;
    bool wanted = first_frame(input, &frame);
    return (struct pollfd){.fd = wanted || !input->terminal ? input->target : -1, .events = wanted ? POLLOUT : 0};
}

/* True when the target has all of it, at last, or wants no more. */
static bool give(struct input *input, const char *bytes, size_t length)
{
    while (input->done < length) {
        ssize_t written = RETRY(write(input->target, bytes + input->done, length - input->done));
        if (written < 0 && errno != EAGAIN)
            stop(input);
        if (written <= 0)
            return input->fifo < 0;
        input->done += (size_t)written;
    }
    return true;
}

/* The end of a terminal's input is a character, which ends the line where there is one, and the input where there is none:
 * termios(3), VEOF. */
static size_t write_eof(struct input *input)
{
    struct termios mode;
    if (tcgetattr(input->target, &mode) < 0 || mode.c_cc[VEOF] == _POSIX_VDISABLE)
        return 0;
    memset(input->eof, mode.c_cc[VEOF], sizeof input->eof);
    return input->in_line && (mode.c_lflag & ICANON) ? 2 : 1;
}

static bool end(struct input *input)
{
    if (!input->terminal) {
        stop(input);
        return true;
    }
    size_t length = write_eof(input);
    if (!give(input, input->eof, length))
        return false;
    input->in_line = false;
    return true;
}

static void resize(const struct input *input, const char *payload, size_t length)
{
    uint16_t size[2];
    if (!input->terminal || length != sizeof size)
        return;
    memcpy(size, payload, sizeof size);
    ioctl(input->target, TIOCSWINSZ, &(struct winsize){.ws_row = size[0], .ws_col = size[1]});
}

/* True when the frame is done with. */
static bool take(struct input *input, const struct frame *frame, const char *payload)
{
    switch (frame->kind) {
    case FRAME_DATA:
        if (!give(input, payload, frame->length))
            return false;
        if (frame->length)
            input->in_line = !strchr("\r\n", payload[frame->length - 1]);
        return true;
    case FRAME_END:
        return end(input);
    case FRAME_SIZE:
        resize(input, payload, frame->length);
        return true;
    default: /* no server of ours: nothing of it can be relied on */
        stop(input);
        return true;
    }
}

static void pass_on_frames(struct input *input)
{
    struct frame frame;
    while (input->fifo >= 0 && first_frame(input, &frame)) {
        if (!take(input, &frame, input->buffer + input->begin + sizeof frame))
            return;
        input->done = 0;
        if (input->fifo < 0)
            return;
        input->begin += sizeof frame + frame.length;
        input->length -= sizeof frame + frame.length;
    }
}

static void read_frames(struct input *input)
{
    memmove(input->buffer, input->buffer + input->begin, input->length);
    input->begin = 0;
    ssize_t length = RETRY(read(input->fifo, input->buffer + input->length, BUFFER_SIZE - input->length));
    if (length > 0)
        input->length += (size_t)length;
}

void input_pass_on(struct input *input, bool unread)
{
    struct frame frame;
    if (unread) {
        stop(input);
        return;
    }
    if (!first_frame(input, &frame))
        read_frames(input);
    pass_on_frames(input);
}

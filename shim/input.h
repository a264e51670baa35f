/* What clients send to the command: frames from a FIFO, to its stdin or its terminal. */
#ifndef JOBLET_INPUT_H
#define JOBLET_INPUT_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PROTOCOL.md, "Input". A frame is at most PIPE_BUF bytes long, so that it is written whole: pipe(7). */
struct frame {
    uint8_t kind; /* FRAME_... */
    uint8_t zero;
    uint16_t length; /* of the payload, which follows */
};
enum { FRAME_DATA = 'd', FRAME_END = 'e', FRAME_SIZE = 's', FRAME_PAYLOAD_MAX = 4096 - sizeof(struct frame) };

struct input {
    int fifo;   /* where frames come from; -1: none are taken, or no more */
    int target; /* the write end of the command's stdin, or the master of its terminal; -1 where fifo is */
    bool terminal;
    bool in_line;         /* what the terminal has got last was no end of a line */
    char *buffer;         /* frames, of which the last may lack its end */
    size_t begin, length; /* of what is in the buffer and not done with */
    size_t done;          /* bytes of the first frame that the target has taken */
    char eof[2];          /* what an end is for a terminal */
};

/* Makes the FIFO in the job's directory; dies at STAGE_LOG. */
void input_open(struct input *, int dir);
/* Makes the pipe for the command's stdin, which is `owner`'s, so that the command may open it by its name; its read end.
 * Dies at STAGE_LOG. */
int input_make_pipe(struct input *, uint32_t owner);
/* The terminal that the input is for instead. Dies at STAGE_LOG. */
void input_use_terminal(struct input *, int master);

/* What to wait for: more frames, or the target that the first one is for. */
struct pollfd input_awaits_frames(const struct input *);
struct pollfd input_awaits_target(const struct input *);
/* Take what has come and give what can be given, without waiting and not for long; `unread` says that nobody can read the
 * target any more. */
void input_pass_on(struct input *, bool unread);

#endif

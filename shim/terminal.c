#include "terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "die.h"
#include "kernel.h"

static int check(int result, const char *call)
{
    if (result < 0)
        die(STAGE_TERMINAL, "%s", call);
    return result;
}

struct terminal terminal_open(uint32_t rows, uint32_t columns)
{
    struct winsize size = {.ws_row = (uint16_t)rows, .ws_col = (uint16_t)columns};
    struct terminal made;
    struct termios mode;
    int unlocked = 0;
    made.master = check(open("/dev/pts/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC), "open ptmx");
    check(ioctl(made.master, TIOCSPTLCK, &unlocked), "ioctl TIOCSPTLCK");
    /* By the master, not by its name: ioctl_tty(2). */
    made.slave = check(ioctl(made.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), "ioctl TIOCGPTPEER");
    check(ioctl(made.slave, TIOCSWINSZ, &size), "ioctl TIOCSWINSZ");
    check(tcgetattr(made.slave, &mode), "tcgetattr");
    mode.c_iflag |= IUTF8; /* a character is erased whole */
    check(tcsetattr(made.slave, TCSANOW, &mode), "tcsetattr");
    return made;
}

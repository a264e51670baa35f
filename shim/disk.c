#include "disk.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "die.h"
#include "kernel.h"

enum { ATTEMPTS = 100, BLOCK_SIZE = 4096 };

static int check(int result, const char *call)
{
    if (result < 0)
        die(STAGE_ROOTFS, "%s", call);
    return result;
}

/* The kernel names a free device, and whoever comes first gets it: loop(4). */
static int attach_to_a_device(int file, char name[static 32])
{
    /* Direct I/O, so that what the job writes is in memory once only, and its disk limit holds for it. */
    struct kernel_loop_config config = {
        .fd = (uint32_t)file,
        .block_size = BLOCK_SIZE,
        .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
    };
    int control = check(open("/dev/loop-control", O_RDWR | O_CLOEXEC | O_NOFOLLOW), "open /dev/loop-control");
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int number = check(ioctl(control, LOOP_CTL_GET_FREE), "ioctl LOOP_CTL_GET_FREE");
        snprintf(name, 32, "/dev/loop%d", number);
        int device = check(open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW), "open loop device");
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return device;
        }
        int error = errno;
        close(device);
        if (error == EINVAL && config.info.lo_flags & LO_FLAGS_DIRECT_IO) {
            config.info.lo_flags = LO_FLAGS_AUTOCLEAR; /* a file system without it, such as tmpfs */
        } else if (error != EBUSY) {
            errno = error;
            die(STAGE_ROOTFS, "ioctl LOOP_CONFIGURE");
        }
    }
    die(STAGE_ROOTFS, "ioctl LOOP_CONFIGURE");
}

static int open_file_system(const char *device)
{
    int fs = check(kernel_fsopen("ext4"), "fsopen ext4");
    check(kernel_fsconfig(fs, JOBLET_FSCONFIG_SET_STRING, "source", device), "fsconfig source");
    check(kernel_fsconfig(fs, JOBLET_FSCONFIG_SET_FLAG, "noinit_itable", NULL), "fsconfig noinit_itable");
    check(kernel_fsconfig(fs, JOBLET_FSCONFIG_CMD_CREATE, NULL, NULL), "fsconfig create ext4");
    int mount = check(kernel_fsmount(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV), "fsmount ext4");
    close(fs);
    return mount;
}

int mount_disk(uint32_t owner)
{
    struct stat what;
    char name[32];
    int file = check(open("disk", O_RDWR | O_CLOEXEC | O_NOFOLLOW), "open disk");
    check(fstat(file, &what), "stat disk");
    errno = EINVAL;
    check(S_ISREG(what.st_mode) ? 0 : -1, "stat disk");

    int device = attach_to_a_device(file, name);
    close(file);
    int mount = open_file_system(name);
    close(device); /* the mount has it now */
    check(fchownat(mount, "", owner, owner, AT_EMPTY_PATH), "chown work");
    if (unlinkat(mount, "lost+found", AT_REMOVEDIR) < 0 && errno != ENOENT)
        die(STAGE_ROOTFS, "rmdir lost+found");
    return mount;
}

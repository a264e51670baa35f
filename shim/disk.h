/* A work directory with a size limit: an ext4 file system in a file, through a loop device: loop(4). */
#ifndef JOBLET_DISK_H
#define JOBLET_DISK_H

#include <stdint.h>

/* A detached mount of the file system in the file `disk` of the working directory, owned by the job's root. The device
 * goes when the last mount of it does. Dies at STAGE_ROOTFS. */
int mount_disk(uint32_t owner);

#endif

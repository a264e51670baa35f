#include "rootfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "die.h"
#include "kernel.h"

/* Everything here goes through descriptors: of a detached mount, or of a place inside the new root that was looked up
 * with RESOLVE_IN_ROOT, so that a symbolic link never leads out of it: openat2(2). */

static int check(int result, const char *call, const char *path)
{
    if (result < 0)
        die(STAGE_ROOTFS, "%s %s", call, path);
    return result;
}

/* A new file system as a detached mount, options as `key=value,...`: fsopen(2). */
static int new_mount(const char *type, unsigned attributes, const char *options)
{
    char list[256], *rest, *option;
    snprintf(list, sizeof list, "%s", options);
    int fs = check(kernel_fsopen(type), "fsopen", type);
    for (option = strtok_r(list, ",", &rest); option; option = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(option, '=');
        *value++ = '\0';
        check(kernel_fsconfig(fs, JOBLET_FSCONFIG_SET_STRING, option, value), "fsconfig", option);
    }
    check(kernel_fsconfig(fs, JOBLET_FSCONFIG_CMD_CREATE, NULL, NULL), "fsconfig create", type);
    int mount = check(kernel_fsmount(fs, attributes), "fsmount", type);
    close(fs);
    return mount;
}

/* A detached mount of what the descriptor stands for. */
static int clone_mount(int fd, unsigned flags, uint64_t attributes, const char *path)
{
    int mount = kernel_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags);
    check(mount, "open_tree", path);
    check(kernel_mount_setattr(mount, flags, attributes), "mount_setattr", path);
    return mount;
}

static void attach(int mount, int place, const char *path)
{
    check(kernel_move_mount(mount, place, "", MOVE_MOUNT_T_EMPTY_PATH), "move_mount", path);
    close(place);
}

/* Looks the absolute path up as the job would. */
static int look_up(int root, const char *path, uint64_t flags)
{
    struct kernel_open_how how = {
        .flags = O_PATH | O_CLOEXEC | flags,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    return kernel_openat2(root, path, &how);
}

/* The directory of that path, made with its parents where they are missing. */
static int make_dir(int root, const char *path)
{
    int dir = look_up(root, path, O_DIRECTORY);
    if (dir >= 0 || errno != ENOENT)
        return check(dir, "open", path);

    char prefix[4096];
    dir = check(fcntl(root, F_DUPFD_CLOEXEC, 0), "dup", path);
    for (size_t name = 1, end; path[name - 1]; name = end + 1) {
        end = name + strcspn(path + name, "/");
        memcpy(prefix, path, end); /* spec.c let no longer path through */
        prefix[end] = '\0';
        int next = look_up(root, prefix, O_DIRECTORY);
        if (next < 0 && errno == ENOENT) {
            check(mkdirat(dir, prefix + name, 0755), "mkdir", prefix);
            next = look_up(root, prefix, O_DIRECTORY);
        }
        check(next, "open", prefix);
        close(dir);
        dir = next;
        if (!path[end])
            break;
    }
    return dir;
}

/* The directory that holds the path's last name. */
static int make_parent(int root, const char *path, const char **name)
{
    char parent[4096];
    *name = strrchr(path, '/') + 1;
    size_t length = (size_t)(*name - path) - 1;
    memcpy(parent, path, length); /* spec.c let no longer path through */
    parent[length] = '\0';
    return make_dir(root, length ? parent : "/");
}

/* The file of that path, made empty where it is missing. */
static int make_file(int root, const char *path)
{
    int file = look_up(root, path, 0);
    if (file >= 0 || errno != ENOENT)
        return check(file, "open", path);

    const char *name;
    int parent = make_parent(root, path, &name);
    int made = check(openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0444), "create", path);
    close(made);
    file = check(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", path);
    close(parent);
    return file;
}

/* A link may be there already, inside a directory that is shown too. */
static void make_link(int root, int source, const char *path)
{
    char target[4096], present[4096];
    const char *name;
    ssize_t length = readlinkat(source, "", target, sizeof target - 1);
    check((int)length, "readlink", path);
    target[length] = '\0';
    int parent = make_parent(root, path, &name);
    if (symlinkat(target, parent, name) < 0) {
        int error = errno;
        ssize_t there = readlinkat(parent, name, present, sizeof present);
        errno = error;
        if (there != length || memcmp(present, target, (size_t)length) != 0)
            die(STAGE_ROOTFS, "symlink %s", path);
    }
    close(parent);
}

static void show(int root, const char *path)
{
    struct stat what;
    int source = check(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", path);
    check(fstat(source, &what), "stat", path);
    if (S_ISLNK(what.st_mode)) {
        make_link(root, source, path);
    } else {
        int mount = clone_mount(source, AT_RECURSIVE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, path);
        attach(mount, S_ISDIR(what.st_mode) ? make_dir(root, path) : make_file(root, path), path);
        close(mount);
    }
    close(source);
}

/* The host path of what jobs may write to can be anything by now: no link of it is followed. */
static void show_writable(int root, const char *path, const char *place, int idmap)
{
    struct stat what;
    struct kernel_open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    int source = check(kernel_openat2(AT_FDCWD, path, &how), "open", path);
    check(fstat(source, &what), "stat", path);
    int mount = clone_mount(source, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, path);
    check(kernel_mount_idmap(mount, idmap), "mount_setattr MOUNT_ATTR_IDMAP", path);
    attach(mount, S_ISDIR(what.st_mode) ? make_dir(root, place) : make_file(root, place), place);
    close(mount);
    close(source);
    close(idmap);
}

static void mount_scratch(int root, const char *path, const struct spec *spec)
{
    char options[128];
    /* An empty file costs an inode and no byte, so those have a limit of their own. */
    unsigned long long inodes = spec->tmp_bytes / 4096 + 16384;
    snprintf(options, sizeof options, "mode=1777,uid=%u,gid=%u,size=%llu,nr_inodes=%llu", spec->uid_base,
             spec->uid_base, (unsigned long long)spec->tmp_bytes, inodes);
    int mount = new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, options);
    attach(mount, make_dir(root, path), path);
    close(mount);
}

/* Each procfs is an instance of its own since Linux 5.8, with its own options: proc(5). It has the job's own processes, not
 * the init, and nothing of the files that tell about the host or change it. */
static void mount_proc(int root)
{
    int mount = new_mount("proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
                          "subset=pid,hidepid=invisible");
    attach(mount, make_dir(root, "/proc"), "/proc");
    close(mount);
}

/* mknod(2) needs what a container may not give; the host's own node does as well then. */
static void make_device(int dev, const char *name, unsigned minor_number)
{
    char path[32];
    if (mknodat(dev, name, S_IFCHR | 0666, makedev(name[0] == 't' ? 5 : 1, minor_number)) == 0)
        return;
    if (errno != EPERM)
        die(STAGE_ROOTFS, "mknod %s", name);
    snprintf(path, sizeof path, "/dev/%s", name);
    struct stat what;
    int source = check(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", path);
    check(fstat(source, &what), "stat", path);
    errno = ENODEV;
    check(S_ISCHR(what.st_mode) ? 0 : -1, "stat", path);
    int mount = clone_mount(source, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, path);
    attach(mount, make_file(dev, path + strlen("/dev")), path);
    close(mount);
    close(source);
}

/* The message queues of the job's IPC namespace, which landlock would refuse without a place: mq_overview(7). Some kernels
 * have none. */
static void mount_queues(int root)
{
    int fs = kernel_fsopen("mqueue");
    if (fs < 0 && errno == ENODEV)
        return;
    check(fs, "fsopen", "mqueue");
    close(fs);
    int mount = new_mount("mqueue", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, "");
    attach(mount, make_dir(root, "/dev/mqueue"), "/dev/mqueue");
    close(mount);
}

static void mount_dev(int root, const struct spec *spec)
{
    static const struct {
        const char *name;
        unsigned minor_number;
    } devices[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, {"tty", 0}};
    static const char *const links[][2] = {{"ptmx", "pts/ptmx"},
                                           {"fd", "/proc/self/fd"},
                                           {"stdin", "/proc/self/fd/0"},
                                           {"stdout", "/proc/self/fd/1"},
                                           {"stderr", "/proc/self/fd/2"}};

    int dev = new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "mode=0755,size=64k,nr_inodes=64");
    attach(dev, make_dir(root, "/dev"), "/dev");
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        make_device(dev, devices[i].name, devices[i].minor_number);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        check(symlinkat(links[i][1], dev, links[i][0]), "symlink", links[i][0]);
    /* An instance of its own, without the host's terminals: devpts in the kernel's filesystems documentation. */
    int pts = new_mount("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "ptmxmode=0666,mode=0620,max=256");
    attach(pts, make_dir(root, "/dev/pts"), "/dev/pts");
    close(pts);
    mount_scratch(root, "/dev/shm", spec);
    mount_queues(root);
    check(kernel_mount_setattr(dev, 0, MOUNT_ATTR_RDONLY), "mount_setattr", "/dev");
    close(dev);
}

/* The working directory of the init is the job's directory, in the init's own mount namespace. */
static int mount_work(int root, const struct spec *spec, int disk)
{
    int work = disk;
    if (!spec->disk) {
        int source = check(open("work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open", "work");
        work = clone_mount(source, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "work");
        close(source);
    }
    attach(work, make_dir(root, spec->work), spec->work);
    return work;
}

/* An empty directory and an empty file, in the directory over which /proc is mounted afterwards: a mount must be in a
 * namespace to be cloned before Linux 6.15, and no one can look there. */
static int make_covers(int root)
{
    int covers = make_dir(root, "/proc");
    check(mkdirat(covers, "directory", 0555), "mkdir", "cover");
    close(check(openat(covers, "file", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444), "create", "cover"));
    return covers;
}

/* Hides what is there for the job, wherever a link may lead. */
static void mask(int root, int covers, const char *path)
{
    struct stat what;
    int place = look_up(root, path, 0);
    if (place < 0 && (errno == ENOENT || errno == ENOTDIR))
        return;
    check(place, "open", path);
    check(fstat(place, &what), "stat", path);
    int source = openat(covers, S_ISDIR(what.st_mode) ? "directory" : "file", O_PATH | O_CLOEXEC);
    check(source, "open", "cover");
    int cover = clone_mount(
        source, 0, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, path);
    attach(cover, place, path);
    close(cover);
    close(source);
}

/* In a chroot this process's root is not the namespace's, and then there is no pivot_root(2) from under a shared mount and
 * no user namespace at all: user_namespaces(7). To enter the namespace that one is in leads to its own root: setns(2). */
static void leave_chroot(int namespace)
{
    check(setns(namespace, CLONE_NEWNS), "setns", "mnt");
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount private", "/");
    close(namespace);
}

/* pivot_root(2), "pivot_root(".", ".")": the old root comes to lie over the new one, and goes. */
static void pivot(int root, int work)
{
    check(fchdir(root), "fchdir", "/");
    check((int)syscall(SYS_pivot_root, ".", "."), "pivot_root", "/");
    check(umount2(".", MNT_DETACH), "umount", "the old root");
    check(fchdir(work), "fchdir", "work");
}

void enter_rootfs(const struct spec *spec, int idmap, int disk)
{
    umask(0); /* modes are meant as they stand here */
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount private", "/");

    /* Directories, links and empty files only. It covers the old /proc, of which nothing more is needed than this, and
     * which no directory that is shown has below itself. */
    int namespace = check(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), "open", "/proc/self/ns/mnt");
    int root = new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "mode=0755,size=1m,nr_inodes=65536");
    check(kernel_move_mount(root, AT_FDCWD, "/proc", 0), "move_mount", "/");

    mount_scratch(root, "/tmp", spec);
    for (size_t i = 0; i < spec->ro.count; i++)
        show(root, spec->ro.at[i]);
    for (size_t i = 0; i < spec->rw.count; i++)
        show_writable(root, spec->rw.at[i], spec->rw.at[i], idmap + (int)i);
    if (spec->shared)
        show_writable(root, spec->shared, SHARED_PLACE, idmap + (int)spec->rw.count);
    int covers = make_covers(root);
    mount_proc(root);
    mount_dev(root, spec);
    int work = mount_work(root, spec, disk);
    for (size_t i = 0; i < spec->mask.count; i++)
        mask(root, covers, spec->mask.at[i]);
    check(kernel_mount_setattr(root, 0, MOUNT_ATTR_RDONLY), "mount_setattr", "/");
    leave_chroot(namespace);
    pivot(root, work);
    close(covers);
    close(root);
    close(work);
}

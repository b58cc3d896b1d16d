/*
 * A disk that fails and loses power, for LD_PRELOAD: stands between SQLite and the system.
 *
 *   cc -O2 -shared -fPIC -o disk.so disk.c -ldl
 *
 * DISK_SURVIVORS   a folder: holds each database file as it was when it was last synced, which is
 *                  the least that a power failure may leave
 * DISK_FAULT       a file: while it says "sync", no file can be synced (EIO); "write": no database
 *                  file can be written (EIO); "full": none can be written (ENOSPC)
 *
 * Only files of databases count: *.db and *.db-wal.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*write_call)(int, const void *, size_t, off64_t);
typedef int (*sync_call)(int);

static int path_of(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    const char *end = strrchr(path, '.');
    return end && (!strcmp(end, ".db") || !strcmp(end, ".db-wal"));
}

static int fault(const char *what)
{
    char said[16] = "";
    const char *path = getenv("DISK_FAULT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, said, sizeof said - 1);
    close(fd);
    return length > 0 && !strncmp(said, what, strlen(what));
}

static void survive(const char *path)
{
    const char *folder = getenv("DISK_SURVIVORS");
    if (!folder)
        return;
    char target[PATH_MAX], fresh[PATH_MAX], buffer[65536];
    snprintf(target, sizeof target, "%s/%s", folder, strrchr(path, '/') + 1);
    snprintf(fresh, sizeof fresh, "%s/fresh", folder);
    int from = open(path, O_RDONLY | O_CLOEXEC);
    int to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t length = -1;
    while (from >= 0 && to >= 0 && (length = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)length) != length)
            abort();
    if (from < 0 || to < 0 || length < 0 || rename(fresh, target))
        abort();
    close(from);
    close(to);
}

static int synced(const char *call, int fd)
{
    char path[PATH_MAX];
    int ours = path_of(fd, path, sizeof path);
    if (ours && fault("sync")) {
        errno = EIO;
        return -1;
    }
    int result = ((sync_call)dlsym(RTLD_NEXT, call))(fd);
    if (ours && !result)
        survive(path);
    return result;
}

static ssize_t written(int fd, const void *data, size_t size, off64_t offset)
{
    char path[PATH_MAX];
    if (path_of(fd, path, sizeof path)) {
        errno = fault("write") ? EIO : fault("full") ? ENOSPC : 0;
        if (errno)
            return -1;
    }
    return ((write_call)dlsym(RTLD_NEXT, "pwrite64"))(fd, data, size, offset);
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
ssize_t pwrite(int fd, const void *d, size_t n, off_t o) { return written(fd, d, n, o); }
ssize_t pwrite64(int fd, const void *d, size_t n, off64_t o) { return written(fd, d, n, o); }

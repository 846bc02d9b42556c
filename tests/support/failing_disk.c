/* Lets system calls on files whose path contains $FAILING fail with EIO while $SWITCH exists.
   Loaded with LD_PRELOAD. $CALLS names the system calls: any of "pread", "pwrite", "sync". */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char *call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || access(getenv("SWITCH"), F_OK) != 0) return 0;
    path[length] = 0;
    return strstr(getenv("CALLS"), call) != NULL && strstr(path, getenv("FAILING")) != NULL;
}

#define CALL(result, name, kind, fd, parameters, arguments)                                        \
    result name parameters {                                                                       \
        result(*next) parameters = (result(*) parameters) dlsym(RTLD_NEXT, #name);                 \
        if (fails(kind, fd)) return errno = EIO, -1;                                               \
        return next arguments;                                                                     \
    }

CALL(ssize_t, pread, "pread", fd, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
CALL(ssize_t, pread64, "pread", fd, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
CALL(ssize_t, pwrite, "pwrite", fd, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
CALL(ssize_t, pwrite64, "pwrite", fd, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
CALL(int, fsync, "sync", fd, (int fd), (fd))
CALL(int, fdatasync, "sync", fd, (int fd), (fd))

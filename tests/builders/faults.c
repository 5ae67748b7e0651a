/* Makes chosen system calls on files below one directory fail, in a program that preloads this.
 *
 * PYREG_FAULTS names a file of one `struct control`, shared with the test, which arms it; PYREG_FAULTS_ROOT
 * is the directory. Compiled by tests/builders/faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    char call[16];        /* which call fails; empty: none */
    volatile int skip;    /* so many succeed before */
    volatile int times;   /* so many fail then */
    volatile int error;   /* with this errno */
    volatile int hits;    /* how many have failed */
};

static struct control *control;
static char root[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PYREG_FAULTS"), *below = getenv("PYREG_FAULTS_ROOT");
    if (!path || !below) return;
    snprintf(root, sizeof root, "%s/", below);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *shared = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED) control = shared;
}

static int below_root(const char *path) { return !strncmp(path, root, strlen(root)); }

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below_root(path);
}

static int armed(const char *call) {
    return control && control->times > 0 && !strncmp(control->call, call, sizeof control->call);
}

static int strikes(void) {
    if (__sync_fetch_and_sub(&control->skip, 1) > 0) return 0;
    if (__sync_fetch_and_sub(&control->times, 1) <= 0) return 0;
    __sync_fetch_and_add(&control->hits, 1);
    errno = control->error;
    return 1;
}

static int fails_fd(const char *call, int fd) { return armed(call) && is_ours(fd) && strikes(); }

static int fails_at(const char *call, int dirfd, const char *path) {
    if (!armed(call)) return 0;
    if (path[0] == '/' ? !below_root(path) : dirfd >= 0 && !is_ours(dirfd)) return 0;
    return strikes();
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

ssize_t write(int fd, const void *data, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t)
    return fails_fd("write", fd) ? -1 : real(fd, data, count);
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
    return fails_fd("write", fd) ? -1 : real(fd, data, count, at);
}
ssize_t pwrite64(int fd, const void *data, size_t count, off_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off_t)
    return fails_fd("write", fd) ? -1 : real(fd, data, count, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int)
    return fails_fd("write", fd) ? -1 : real(fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t)
    return fails_fd("write", fd) ? -1 : real(fd, parts, count, at);
}
int fsync(int fd) {
    REAL(int, fsync, int)
    return fails_fd("fsync", fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int)
    return fails_fd("fdatasync", fd) ? -1 : real(fd);
}
int ftruncate(int fd, off_t size) {
    REAL(int, ftruncate, int, off_t)
    return fails_fd("ftruncate", fd) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off_t size) {
    REAL(int, ftruncate64, int, off_t)
    return fails_fd("ftruncate", fd) ? -1 : real(fd, size);
}
int fallocate64(int fd, int mode, off_t at, off_t size) {
    REAL(int, fallocate64, int, int, off_t, off_t)
    return fails_fd("fallocate", fd) ? -1 : real(fd, mode, at, size);
}
int posix_fallocate64(int fd, off_t at, off_t size) {
    REAL(int, posix_fallocate64, int, off_t, off_t)
    return fails_fd("fallocate", fd) ? errno : real(fd, at, size);
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *)
    return fails_at("rename", AT_FDCWD, to) ? -1 : real(from, to);
}
int renameat(int fromfd, const char *from, int tofd, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *)
    return fails_at("rename", tofd, to) ? -1 : real(fromfd, from, tofd, to);
}
int linkat(int fromfd, const char *from, int tofd, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int)
    return fails_at("rename", tofd, to) ? -1 : real(fromfd, from, tofd, to, flags);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t)
    return fails_at("mkdir", AT_FDCWD, path) ? -1 : real(path, mode);
}
int mkdirat(int dirfd, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t)
    return fails_at("mkdir", dirfd, path) ? -1 : real(dirfd, path, mode);
}
static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}
int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...)
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return fails_at("open", AT_FDCWD, path) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...)
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return fails_at("open", AT_FDCWD, path) ? -1 : real(path, flags, mode);
}
int openat(int dirfd, const char *path, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...)
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return fails_at("open", dirfd, path) ? -1 : real(dirfd, path, flags, mode);
}
int openat64(int dirfd, const char *path, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...)
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return fails_at("open", dirfd, path) ? -1 : real(dirfd, path, flags, mode);
}

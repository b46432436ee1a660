// Makes system calls fail as on a mount that lacks them. DARKROOM_TEST_LACKS holds rules:
// NAME:ERRNO or NAME:ERRNO:PART, separated by spaces; with PART only for paths that contain it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int lacks(const char *name, const char *path) {
    const char *rules = getenv("DARKROOM_TEST_LACKS");
    char text[1024];
    if (!rules) return 0;
    snprintf(text, sizeof text, "%s", rules);
    char *rest = text, *rule;
    while ((rule = strsep(&rest, " "))) {
        char *called = strsep(&rule, ":"), *code = strsep(&rule, ":");
        if (!called || !code || strcmp(called, name)) continue;
        if (rule && !(path && strstr(path, rule))) continue;
        errno = atoi(code);
        return 1;
    }
    return 0;
}

static const char *path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return path;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int linkat(int a, const char *from, int b, const char *to, int flags) {
    return lacks("link", to) ? -1 : REAL(linkat)(a, from, b, to, flags);
}

int link(const char *from, const char *to) { return lacks("link", to) ? -1 : REAL(link)(from, to); }

int symlink(const char *from, const char *to) { return lacks("symlink", to) ? -1 : REAL(symlink)(from, to); }

int rename(const char *from, const char *to) { return lacks("rename", to) ? -1 : REAL(rename)(from, to); }

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return lacks("renameat2", to) ? -1 : REAL(renameat2)(a, from, b, to, flags);
}

int chmod(const char *path, mode_t mode) { return lacks("chmod", path) ? -1 : REAL(chmod)(path, mode); }

int fchmod(int fd, mode_t mode) {
    char path[4096];
    return lacks("chmod", path_of(fd, path, sizeof path)) ? -1 : REAL(fchmod)(fd, mode);
}

int flock(int fd, int what) {
    char path[4096];
    return lacks("flock", path_of(fd, path, sizeof path)) ? -1 : REAL(flock)(fd, what);
}

int fsync(int fd) {
    char path[4096];
    return lacks("fsync", path_of(fd, path, sizeof path)) ? -1 : REAL(fsync)(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[4096];
    return lacks("write", path_of(fd, path, sizeof path)) ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t count, unsigned flags) {
    char path[4096];
    if (lacks("write", path_of(to, path, sizeof path))) return -1;
    return REAL(copy_file_range)(from, a, to, b, count, flags);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t count) {
    char path[4096];
    return lacks("write", path_of(to, path, sizeof path)) ? -1 : REAL(sendfile)(to, from, offset, count);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
    char path[4096];
    return lacks("write", path_of(to, path, sizeof path)) ? -1 : REAL(sendfile64)(to, from, offset, count);
}

static int is_lock(int what) {
    return what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW;
}

int fcntl(int fd, int what, ...) {
    char path[4096];
    va_list rest;
    va_start(rest, what);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (is_lock(what) && lacks("fcntl", path_of(fd, path, sizeof path))) return -1;
    return REAL(fcntl)(fd, what, argument);
}

int fcntl64(int fd, int what, ...) {
    char path[4096];
    va_list rest;
    va_start(rest, what);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (is_lock(what) && lacks("fcntl", path_of(fd, path, sizeof path))) return -1;
    return REAL(fcntl)(fd, what, argument);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    char path[4096];
    if (fd >= 0 && flags & MAP_SHARED && lacks("mmap", path_of(fd, path, sizeof path))) return MAP_FAILED;
    return REAL(mmap)(at, length, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap(at, length, protection, flags, fd, offset);
}

/* A library for LD_PRELOAD that disturbs a program at the n-th call that changes a folder.
 *
 *   gcc -O2 -shared -fPIC -o faults.so faults.c -ldl
 *
 *   FAULT_ROOT  the folder; calls elsewhere, and those on pipes and terminals, are not counted
 *   FAULT_LOG   a file outside the folder: a line for each call counted, "n call bytes path"
 *   FAULT_AT    the call that is disturbed, from 1; none without it
 *   FAULT_HOW   before   the process is killed in place of the call
 *               after    it is killed once the call is done
 *               torn     it is killed after half the bytes of a write; as `after` for other calls
 *               ERRNO    the call is not done and fails with this error number
 *   FAULT_STAYS with an error number: all later calls that need room fail too, as on a disk that stays full
 *   FAULT_COUNTER  a file of eight bytes that several processes count in; without it each counts for itself
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum how { NOTHING, BEFORE, AFTER, TORN, FAIL };

static char root[4096];
static size_t root_length;
static enum how how;
static int error, stays, logged = -1;
static long at;
static atomic_long counted, *counter = &counted;

__attribute__((constructor)) static void begin(void) {
  const char *value = getenv("FAULT_ROOT");
  if (!value || !realpath(value, root)) return;
  root_length = strlen(root);
  if ((value = getenv("FAULT_AT"))) at = atol(value);
  if ((value = getenv("FAULT_HOW"))) {
    how = !strcmp(value, "before") ? BEFORE : !strcmp(value, "after") ? AFTER : !strcmp(value, "torn") ? TORN : FAIL;
    error = atoi(value);
  }
  stays = getenv("FAULT_STAYS") != NULL;
  if ((value = getenv("FAULT_LOG")))
    logged = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if ((value = getenv("FAULT_COUNTER"))) {
    int fd = syscall(SYS_openat, AT_FDCWD, value, O_RDWR | O_CLOEXEC, 0);
    void *page = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || page == MAP_FAILED) abort();
    counter = page;
    syscall(SYS_close, fd);
  }
}

static int inside(const char *path) {
  return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The path of an open file or folder; whether it is a file, a folder or a link inside the root. */
static int path_of(int fd, char *path, size_t room) {
  char link[64];
  struct stat found;
  if (!root_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, room - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path) && !fstat(fd, &found) && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
}

/* `name` from the folder `fd`, absolute; links and dots in it are not followed, as none leads out of the root. */
static int path_at(int fd, const char *name, char *path, size_t room) {
  char folder[4096];
  if (!root_length || !name) return 0;
  if (name[0] == '/') {
    snprintf(path, room, "%s", name);
    return inside(path);
  }
  if (fd == AT_FDCWD ? !getcwd(folder, sizeof folder) : !path_of(fd, folder, sizeof folder)) return 0;
  while (!strncmp(name, "./", 2)) name += 2;
  while (!strncmp(name, "../", 3)) {
    char *end = strrchr(folder, '/');
    if (end) *end = 0;
    name += 3;
  }
  snprintf(path, room, "%s/%s", folder, name);
  return inside(path);
}

static _Noreturn void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

/* Counts a call. What is to be done with it: NOTHING, AFTER or TORN; FAIL with errno set. */
static enum how point(const char *call, long bytes, const char *path, int needs_room) {
  long n = atomic_fetch_add(counter, 1) + 1;
  if (logged >= 0) {
    char line[4400];
    int length = snprintf(line, sizeof line, "%ld %s %ld %s\n", n, call, bytes, path);
    syscall(SYS_write, logged, line, length);
  }
  if (!at || (n != at && !(how == FAIL && stays && n > at && needs_room))) return NOTHING;
  if (how == BEFORE) die();
  if (how == FAIL) errno = error;
  return how;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The call on a path or an open file, disturbed if its turn has come. */
#define DISTURBED(counts, call, bytes, path, room, failed, done) \
  do { \
    enum how now = (counts) ? point(call, bytes, path, room) : NOTHING; \
    if (now == FAIL) return failed; \
    __typeof__(done) result = done; \
    if (now != NOTHING) die(); \
    return result; \
  } while (0)

#define ON_FILE(fd, call, bytes, room, failed, done) \
  char path[4400]; \
  DISTURBED(path_of(fd, path, sizeof path), call, bytes, path, room, failed, done)

#define ON_PATH(fd, name, call, room, done) \
  char path[8500]; \
  DISTURBED(path_at(fd, name, path, sizeof path), call, 0, path, room, -1, done)

/* Data: half of it may reach the file. */
#define ON_DATA(fd, call, bytes, whole, half) \
  char path[4400]; \
  enum how now = path_of(fd, path, sizeof path) ? point(call, bytes, path, 1) : NOTHING; \
  if (now == FAIL) return -1; \
  if (now == TORN) { \
    half; \
    die(); \
  } \
  ssize_t result = whole; \
  if (now == AFTER) die(); \
  return result

ssize_t write(int fd, const void *data, size_t n) {
  ON_DATA(fd, "write", n, REAL(write)(fd, data, n), REAL(write)(fd, data, n / 2));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t from) {
  ON_DATA(fd, "pwrite", n, REAL(pwrite)(fd, data, n, from), REAL(pwrite)(fd, data, n / 2, from));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t from) {
  ON_DATA(fd, "pwrite", n, REAL(pwrite64)(fd, data, n, from), REAL(pwrite64)(fd, data, n / 2, from));
}
static long size_of(const struct iovec *parts, int n) {
  long bytes = 0;
  for (int i = 0; i < n; i++) bytes += parts[i].iov_len;
  return bytes;
}
/* Half of the bytes, part after part. */
static void half_of(int fd, const struct iovec *parts, int n) {
  long left = size_of(parts, n) / 2;
  for (int i = 0; i < n && left > 0; i++) {
    long part = (long)parts[i].iov_len < left ? (long)parts[i].iov_len : left;
    if (REAL(write)(fd, parts[i].iov_base, part) < 0) return;
    left -= part;
  }
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  ON_DATA(fd, "writev", size_of(parts, n), REAL(writev)(fd, parts, n), half_of(fd, parts, n));
}
ssize_t copy_file_range(int in, off64_t *in_from, int out, off64_t *out_from, size_t n, unsigned flags) {
  ON_DATA(out, "copy_file_range", n, REAL(copy_file_range)(in, in_from, out, out_from, n, flags),
          REAL(copy_file_range)(in, in_from, out, out_from, n / 2, flags));
}
ssize_t sendfile(int out, int in, off_t *from, size_t n) {
  ON_DATA(out, "sendfile", n, REAL(sendfile)(out, in, from, n), REAL(sendfile)(out, in, from, n / 2));
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t n) {
  ON_DATA(out, "sendfile", n, REAL(sendfile64)(out, in, from, n), REAL(sendfile64)(out, in, from, n / 2));
}

int fsync(int fd) { ON_FILE(fd, "fsync", 0, 1, -1, REAL(fsync)(fd)); }
int fdatasync(int fd) { ON_FILE(fd, "fdatasync", 0, 1, -1, REAL(fdatasync)(fd)); }
int ftruncate(int fd, off_t n) { ON_FILE(fd, "ftruncate", n, 0, -1, REAL(ftruncate)(fd, n)); }
int ftruncate64(int fd, off64_t n) { ON_FILE(fd, "ftruncate", n, 0, -1, REAL(ftruncate64)(fd, n)); }
int fallocate(int fd, int mode, off_t from, off_t n) {
  ON_FILE(fd, "fallocate", n, 1, -1, REAL(fallocate)(fd, mode, from, n));
}
int posix_fallocate(int fd, off_t from, off_t n) {
  ON_FILE(fd, "posix_fallocate", n, 1, error, REAL(posix_fallocate)(fd, from, n));
}
int fchmod(int fd, mode_t mode) { ON_FILE(fd, "fchmod", 0, 0, -1, REAL(fchmod)(fd, mode)); }

/* Only what makes or empties a file; O_TMPFILE has no name and is counted by its writes. */
#define ON_OPEN(fd, name, flags, done) \
  char path[8500]; \
  DISTURBED((flags & (O_CREAT | O_TRUNC)) && path_at(fd, name, path, sizeof path), "open", 0, path, 1, -1, done)
#define MODE(last) \
  va_list more; \
  va_start(more, last); \
  mode_t mode = last & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
  va_end(more)
int open(const char *name, int flags, ...) {
  MODE(flags);
  ON_OPEN(AT_FDCWD, name, flags, REAL(open)(name, flags, mode));
}
int open64(const char *name, int flags, ...) {
  MODE(flags);
  ON_OPEN(AT_FDCWD, name, flags, REAL(open64)(name, flags, mode));
}
int openat(int fd, const char *name, int flags, ...) {
  MODE(flags);
  ON_OPEN(fd, name, flags, REAL(openat)(fd, name, flags, mode));
}
int openat64(int fd, const char *name, int flags, ...) {
  MODE(flags);
  ON_OPEN(fd, name, flags, REAL(openat64)(fd, name, flags, mode));
}
int creat(const char *name, mode_t mode) { ON_PATH(AT_FDCWD, name, "open", 1, REAL(creat)(name, mode)); }
int creat64(const char *name, mode_t mode) { ON_PATH(AT_FDCWD, name, "open", 1, REAL(creat64)(name, mode)); }

int mkdir(const char *name, mode_t mode) { ON_PATH(AT_FDCWD, name, "mkdir", 1, REAL(mkdir)(name, mode)); }
int mkdirat(int fd, const char *name, mode_t mode) { ON_PATH(fd, name, "mkdir", 1, REAL(mkdirat)(fd, name, mode)); }
int rmdir(const char *name) { ON_PATH(AT_FDCWD, name, "rmdir", 0, REAL(rmdir)(name)); }
int unlink(const char *name) { ON_PATH(AT_FDCWD, name, "unlink", 0, REAL(unlink)(name)); }
int unlinkat(int fd, const char *name, int flags) { ON_PATH(fd, name, "unlink", 0, REAL(unlinkat)(fd, name, flags)); }
int truncate(const char *name, off_t n) { ON_PATH(AT_FDCWD, name, "truncate", 0, REAL(truncate)(name, n)); }
int chmod(const char *name, mode_t mode) { ON_PATH(AT_FDCWD, name, "chmod", 0, REAL(chmod)(name, mode)); }
int rename(const char *from, const char *to) { ON_PATH(AT_FDCWD, to, "rename", 1, REAL(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
  ON_PATH(b, to, "rename", 1, REAL(renameat)(a, from, b, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  ON_PATH(b, to, "rename", 1, REAL(renameat2)(a, from, b, to, flags));
}
int link(const char *from, const char *to) { ON_PATH(AT_FDCWD, to, "link", 1, REAL(link)(from, to)); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
  ON_PATH(b, to, "link", 1, REAL(linkat)(a, from, b, to, flags));
}
int symlink(const char *from, const char *to) { ON_PATH(AT_FDCWD, to, "symlink", 1, REAL(symlink)(from, to)); }
int symlinkat(const char *from, int fd, const char *to) {
  ON_PATH(fd, to, "symlink", 1, REAL(symlinkat)(from, fd, to));
}

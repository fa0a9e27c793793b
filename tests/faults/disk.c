/* For LD_PRELOAD: disturbs a program at one of the calls that change a folder, so that tests can choose the moment.
 *
 *   FAULT_CALL  open (of a file that is made or emptied), write, rename, unlink, mkdir or fsync
 *   FAULT_PATH  a part of the path; of a rename that of the new name
 *   FAULT_NTH   which of those calls, from 1
 *   FAULT_HOW   before: the process is killed in place of the call; after: once it is done;
 *               full: it fails, as do all later ones that need room below FAULT_ROOT, with ENOSPC; once: it alone does
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GO_ON, FAIL, DIE };

static atomic_long seen;
static atomic_int is_full;

static int is_set(const char *name, const char *value) {
  const char *set = getenv(name);
  return set && !strcmp(set, value);
}

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

static int disturb(const char *call, const char *path, int needs_room) {
  const char *part = getenv("FAULT_PATH"), *nth = getenv("FAULT_NTH"), *root = getenv("FAULT_ROOT");
  if (!part || !nth || !root) return GO_ON;
  if (is_set("FAULT_CALL", call) && strstr(path, part) && atomic_fetch_add(&seen, 1) + 1 == atol(nth)) {
    if (is_set("FAULT_HOW", "before")) die();
    if (is_set("FAULT_HOW", "after")) return DIE;
    if (is_set("FAULT_HOW", "full")) is_full = 1;
    errno = ENOSPC;
    return FAIL;
  }
  if (is_full && needs_room && !strncmp(path, root, strlen(root))) {
    errno = ENOSPC;
    return FAIL;
  }
  return GO_ON;
}

static const char *absolute(const char *name, char *room, size_t size) {
  char folder[4096];
  if (name[0] == '/' || !getcwd(folder, sizeof folder)) return name;
  snprintf(room, size, "%s/%s", folder, name);
  return room;
}

static const char *of_open(int fd, char *room, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, room, size - 1);
  room[length < 0 ? 0 : length] = 0;
  return room;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define DO(call, path, needs_room, done) \
  char room[8500]; \
  int how = disturb(call, path, needs_room); \
  if (how == FAIL) return -1; \
  __typeof__(done) result = done; \
  if (how == DIE) die(); \
  return result
#define ABSOLUTE(name) absolute(name, room, sizeof room)
#define OF(fd) of_open(fd, room, sizeof room)

ssize_t write(int fd, const void *data, size_t n) { DO("write", OF(fd), 1, REAL(write)(fd, data, n)); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  DO("write", OF(fd), 1, REAL(pwrite64)(fd, data, n, at));
}
int fsync(int fd) { DO("fsync", OF(fd), 1, REAL(fsync)(fd)); }
int fdatasync(int fd) { DO("fsync", OF(fd), 1, REAL(fdatasync)(fd)); }
int mkdir(const char *name, mode_t mode) { DO("mkdir", ABSOLUTE(name), 1, REAL(mkdir)(name, mode)); }
int unlink(const char *name) { DO("unlink", ABSOLUTE(name), 0, REAL(unlink)(name)); }
int unlinkat(int fd, const char *name, int flags) { DO("unlink", ABSOLUTE(name), 0, REAL(unlinkat)(fd, name, flags)); }
int rename(const char *from, const char *to) { DO("rename", ABSOLUTE(to), 1, REAL(rename)(from, to)); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  DO("rename", ABSOLUTE(to), 1, REAL(renameat2)(a, from, b, to, flags));
}
static int opened(const char *name, int flags, mode_t mode) {
  if (!(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, AT_FDCWD, name, flags, mode);
  DO("open", ABSOLUTE(name), 1, (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode));
}
#define MODE(flags) \
  va_list more; \
  va_start(more, flags); \
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
  va_end(more)
int open(const char *name, int flags, ...) {
  MODE(flags);
  return opened(name, flags, mode);
}
int open64(const char *name, int flags, ...) {
  MODE(flags);
  return opened(name, flags | O_LARGEFILE, mode);
}

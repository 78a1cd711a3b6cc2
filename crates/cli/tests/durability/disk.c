/* Stands between a program and the C library, by LD_PRELOAD, for the files of one directory: records every change and
 * every sync in the order in which the kernel got them, and makes calls fail while a file asks for it.
 *
 * DISK_DIR    the directory; nothing else is touched
 * DISK_LOG    where the record goes; nothing is recorded without it
 * DISK_FAULT  while this file exists, calls fail: "<write|sync|any> <errno> <spared>", so many of them spared first
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES_MAX 65536
#define HEAD_BYTES 25

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char *names[FILES_MAX];
static const char *root, *faults;
static int record = -1;

__attribute__((constructor)) static void begin(void) {
  root = getenv("DISK_DIR");
  faults = getenv("DISK_FAULT");
  const char *log = getenv("DISK_LOG");
  if (log) record = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* The path below the directory, or NULL. */
static const char *below(const char *path) {
  size_t length = root ? strlen(root) : 0;
  if (!length || !path || strncmp(path, root, length) || (path[length] && path[length] != '/')) return NULL;
  /* The index of the write-ahead log is shared memory, and is made anew. */
  const char *end = path + strlen(path);
  if (end - path > 4 && !strcmp(end - 4, "-shm")) return NULL;
  return path[length] ? path + length + 1 : path + length;
}

static const char *name_of(int fd) { return fd >= 0 && fd < FILES_MAX ? names[fd] : NULL; }

static void all(const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t wrote = syscall(SYS_write, record, (const char *)bytes + done, length - done);
    if (wrote <= 0) abort();
    done += wrote;
  }
}

static void note(char op, const char *path, const char *other, uint64_t offset, const void *data, uint64_t length) {
  if (record < 0) return;
  uint32_t first = strlen(path), second = other ? strlen(other) : 0;
  size_t whole = HEAD_BYTES + first + second + length;
  char *line = malloc(whole), *end = line + HEAD_BYTES;
  if (!line) abort();
  line[0] = op;
  memcpy(line + 1, &first, 4);
  memcpy(line + 5, &second, 4);
  memcpy(line + 9, &offset, 8);
  memcpy(line + 17, &length, 8);
  end = mempcpy(end, path, first);
  if (second) end = mempcpy(end, other, second);
  if (length) memcpy(end, data, length);
  /* In one call: a kill in the middle leaves half a record at most, at the end. */
  all(line, whole);
  free(line);
}

/* The error that this call is to fail with, or 0. */
static int fault(const char *kind, const char *path) {
  char text[64] = {0}, asked[16];
  int error = 0, spared = 0;
  if (!faults || !path) return 0;
  int fd = syscall(SYS_openat, AT_FDCWD, faults, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
  int asks = length > 0 && sscanf(text, "%15s %d %d", asked, &error, &spared) == 3;
  asks = asks && (!strcmp(asked, "any") || !strcmp(asked, kind));
  if (asks && spared > 0) {
    int left = snprintf(text, sizeof text, "%s %d %d ", asked, error, spared - 1);
    if (syscall(SYS_pwrite64, fd, text, left, 0) != left) abort();
    asks = 0;
  }
  syscall(SYS_close, fd);
  return asks ? error : 0;
}

static int opened(int at, const char *path, int flags, mode_t mode) {
  const char *name = below(path);
  pthread_mutex_lock(&order);
  int changes = flags & (O_CREAT | O_TRUNC);
  int error = changes ? fault("write", name) : 0, fd = -1, saved = error;
  if (!error) {
    struct stat before;
    int fresh = name && (flags & O_CREAT) && syscall(SYS_newfstatat, at, path, &before, 0) != 0;
    fd = syscall(SYS_openat, at, path, flags, mode);
    saved = errno;
    if (fd >= 0 && name && fd < FILES_MAX) {
      free(names[fd]);
      names[fd] = strdup(name);
      if (fresh) note('C', name, NULL, 0, NULL, 0);
      else if (flags & O_TRUNC) note('L', name, NULL, 0, NULL, 0);
    }
  }
  pthread_mutex_unlock(&order);
  errno = saved;
  return fd;
}

#define MODE(flags, mode) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

int open(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened(at, path, flags, mode); }

int close(int fd) {
  pthread_mutex_lock(&order);
  if (name_of(fd)) {
    free(names[fd]);
    names[fd] = NULL;
  }
  int result = syscall(SYS_close, fd), saved = errno;
  pthread_mutex_unlock(&order);
  errno = saved;
  return result;
}

static ssize_t written(int fd, const void *data, size_t length, off_t offset, int moves) {
  if (!name_of(fd)) return moves ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
  pthread_mutex_lock(&order);
  int error = fault("write", name_of(fd)), saved = error;
  ssize_t result = -1;
  if (!error) {
    if (moves) offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    result = moves ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
    saved = errno;
    if (result > 0) note('W', name_of(fd), NULL, offset, data, result);
  }
  pthread_mutex_unlock(&order);
  errno = saved;
  return result;
}

ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, 0, 1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset, 0); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset, 0); }

static int synced(int fd, long number) {
  if (!name_of(fd)) return syscall(number, fd);
  pthread_mutex_lock(&order);
  int error = fault("sync", name_of(fd)), saved = error;
  int result = error ? -1 : syscall(number, fd);
  if (!error) saved = errno;
  note(result ? 'F' : 'S', name_of(fd), NULL, 0, NULL, 0);
  pthread_mutex_unlock(&order);
  errno = saved;
  return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int ftruncate(int fd, off_t length) {
  pthread_mutex_lock(&order);
  int error = fault("write", name_of(fd)), saved = error;
  int result = error ? -1 : syscall(SYS_ftruncate, fd, length);
  if (!error) saved = errno;
  if (!result && name_of(fd)) note('L', name_of(fd), NULL, length, NULL, 0);
  pthread_mutex_unlock(&order);
  errno = saved;
  return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

/* A change of names: made by `call` unless it is to fail. */
#define CHANGE(op, path, other, call) \
  const char *name = below(path), *target = below(other); \
  pthread_mutex_lock(&order); \
  int error = fault("write", name), saved = error; \
  int result = error ? -1 : call; \
  if (!error) saved = errno; \
  if (!result && name) note(op, name, target, 0, NULL, 0); \
  pthread_mutex_unlock(&order); \
  errno = saved; \
  return result;

int rename(const char *from, const char *to) { CHANGE('R', from, to, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)) }
int unlink(const char *path) { CHANGE('U', path, (const char *)NULL, syscall(SYS_unlinkat, AT_FDCWD, path, 0)) }
int mkdir(const char *path, mode_t mode) { CHANGE('M', path, (const char *)NULL, syscall(SYS_mkdirat, AT_FDCWD, path, mode)) }

// Process functions that Swift cannot call itself: variadic calls, unions, and attributes of a spawn that the C library
// hides from Swift.
#ifndef C_PROCESS_H
#define C_PROCESS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>

/// How a process ended.
struct hoist_exit {
    /// The signal that killed the process; 0 when it exited.
    int32_t signal;
    /// The exit status; 0 when a signal killed the process.
    int32_t status;
    /// Microseconds of processor time, with that of its own children.
    int64_t cpu_microseconds;
};

/// Starts a program in a process group of its own, with default signal actions and no blocked signals.
/// descriptors: what the program gets as descriptors 0, 1, 2 and 3; -1 for /dev/null, and for no descriptor 3. The
/// program inherits no other descriptor.
/// Returns 0, or the error. The calling thread must outlive the process if the process is to end with its parent.
int hoist_spawn(const char *path, char *const arguments[], char *const environment[], const int descriptors[4], pid_t *process);

/// Opens a pipe, or a connected pair of stream sockets, that no other program inherits. Returns 0, or -1 and errno.
int hoist_pipe(int ends[2]);
int hoist_socket_pair(int ends[2]);

/// 1 when `bytes` contain `wanted`.
int hoist_contains(const void *bytes, size_t count, const void *wanted, size_t wanted_count);

/// Blocks until the process has ended, but does not reap it: its id is not reused before hoist_reap. Returns 0, or the
/// error.
int hoist_await_exit(pid_t process);

/// Reaps an ended process: its id may be reused afterwards. Returns 0, or the error.
int hoist_reap(pid_t process, struct hoist_exit *result);

/// Makes this process, the leader of its group, end with its parent and take its group along (Linux), and adopt the
/// orphans of its descendants (Linux). SIGTERM and SIGINT have no effect on this process: the parent acts on them.
void hoist_become_child(void);

/// Writes out the buffered output of the C library (stdout and stderr).
void hoist_flush_output(void);

/// Makes this process receive a signal when its parent dies (Linux).
void hoist_signal_at_parents_death(int signal);

/// 1 when this process has children, running or not yet waited for.
int hoist_has_children(void);

/// Limits the private memory of this process, in bytes; 0 for no limit (Linux). Linux counts all private memory since
/// 4.7.
void hoist_limit_memory(uint64_t bytes);

/// Microseconds of a clock that nobody sets and that only runs forward.
int64_t hoist_uptime(void);

/// A time of the system's in microseconds.
static inline int64_t hoist_microseconds(struct timeval time) { return (int64_t)time.tv_sec * 1000000 + time.tv_usec; }

/// Waits for the condition, at most until this uptime in microseconds. Returns 0 when the condition was signalled. On
/// Linux the condition must have been made for CLOCK_MONOTONIC.
int hoist_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t uptime);

/// Microseconds of processor time that this process has used, with that of its ended children.
int64_t hoist_cpu_microseconds(void);

/// The environment of this process, ended by a null pointer.
char **hoist_environment(void);

#endif

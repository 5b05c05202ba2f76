// What Swift cannot say of processes: variadic calls, unions, and attributes of a spawn that the C library hides from it.
#ifndef C_PROCESS_H
#define C_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// How a process ended.
struct hoist_exit {
    /// The signal that killed it; 0 when it ended by itself.
    int32_t signal;
    /// The status that it ended with.
    int32_t status;
    /// Microseconds of processor time, with that of its own children.
    int64_t cpu_microseconds;
};

/// Starts a program in a process group of its own, with all signals as they are by default.
/// descriptors: what it gets as 0, 1, 2 and 3; -1 for /dev/null. It inherits no other.
/// Returns 0, or the error. The calling thread must outlive the process where that shall end with its parent.
int hoist_spawn(const char *path, char *const arguments[], char *const environment[], const int descriptors[4], pid_t *process);

/// Opens a pipe, or a connected pair of stream sockets, that no other program inherits. Returns 0, or -1 and errno.
int hoist_pipe(int ends[2]);
int hoist_socket_pair(int ends[2]);

/// 1 when the bytes are found in the others.
int hoist_contains(const void *bytes, size_t count, const void *wanted, size_t wanted_count);

/// Blocks until the process has ended, and leaves it there: its id stays its own until hoist_reap.
int hoist_await_exit(pid_t process);

/// Takes an ended process off the system's list.
int hoist_reap(pid_t process, struct hoist_exit *result);

/// Makes this process, the leader of its group, end with its parent and take its group along (Linux), and adopt whatever its own
/// descendants leave behind (Linux). SIGTERM and SIGINT are for the parent to act on: here they do nothing.
void hoist_become_child(void);

/// Writes out what the C library still holds back.
void hoist_flush_output(void);

/// Has this process get a signal when the one that started it dies (Linux).
void hoist_signal_at_parents_death(int signal);

/// 1 when this process has children, running or not yet waited for.
int hoist_has_children(void);

/// Lets this process have so many bytes of private memory; 0 for no limit. Linux counts them since 4.7.
void hoist_limit_memory(uint64_t bytes);

/// Microseconds of processor time that this process has used, with that of its ended children.
int64_t hoist_cpu_microseconds(void);

/// The environment of this process, ended by a null pointer.
char **hoist_environment(void);

#endif

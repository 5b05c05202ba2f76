#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

int hoist_spawn(const char *path, char *const arguments[], char *const environment[], const int descriptors[4], pid_t *process) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0) return code;
    code = posix_spawnattr_init(&attributes);
    if (code != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return code;
    }
    for (int target = 0; target < 4 && code == 0; target++) {
        if (descriptors[target] >= 0) {
            code = posix_spawn_file_actions_adddup2(&actions, descriptors[target], target);
        } else if (target < 3) {
            code = posix_spawn_file_actions_addopen(&actions, target, "/dev/null", target == 0 ? O_RDONLY : O_WRONLY, 0);
        }
    }
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
#ifdef __APPLE__
    flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#else
    if (code == 0) code = posix_spawn_file_actions_addclosefrom_np(&actions, descriptors[3] >= 0 ? 4 : 3);
#endif
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    sigfillset(&signals);
    sigdelset(&signals, SIGKILL);
    sigdelset(&signals, SIGSTOP);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, flags);
    if (code == 0) code = posix_spawn(process, path, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

#ifndef __linux__
static int keep_from_others(int code, int ends[2]) {
    if (code == 0) {
        fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    }
    return code;
}
#endif

int hoist_pipe(int ends[2]) {
#ifdef __linux__
    return pipe2(ends, O_CLOEXEC);
#else
    return keep_from_others(pipe(ends), ends);
#endif
}

int hoist_socket_pair(int ends[2]) {
#ifdef __linux__
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
#else
    int code = keep_from_others(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), ends);
    int on = 1;
    for (int i = 0; i < 2 && code == 0; i++) setsockopt(ends[i], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    return code;
#endif
}

int hoist_contains(const void *bytes, size_t count, const void *wanted, size_t wanted_count) {
    return memmem(bytes, count, wanted, wanted_count) != NULL;
}

int hoist_await_exit(pid_t process) {
    siginfo_t information;
    int code;
    do { code = waitid(P_PID, (id_t)process, &information, WEXITED | WNOWAIT); } while (code != 0 && errno == EINTR);
    return code == 0 ? 0 : errno;
}

static int64_t microseconds(const struct rusage *usage) {
    return (int64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000 + usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
}

int hoist_reap(pid_t process, struct hoist_exit *result) {
    int status = 0;
    struct rusage usage;
    pid_t found;
    do { found = wait4(process, &status, 0, &usage); } while (found < 0 && errno == EINTR);
    if (found != process) return errno;
    result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    result->status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    result->cpu_microseconds = microseconds(&usage);
    return 0;
}

static void do_nothing(int signal) { (void)signal; }

#ifdef __linux__
// Kills the process in the middle of anything, so it must not lock or allocate: the process may hold a lock.
static void end_group(int signal) {
    (void)signal;
    // The group with the id of this process, not its current group: a job may have moved the process to the worker's
    // group.
    kill(-getpid(), SIGKILL);
    kill(getpid(), SIGKILL);
}
#endif

static void handle(int signal, void (*handler)(int)) {
    struct sigaction action = { 0 };
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

// Not all files: a thread that a job has left behind may hold the lock of another file for ever.
void hoist_flush_output(void) {
    fflush(stdout);
    fflush(stderr);
}

#ifdef __linux__
// Runs before any code of the program: a child that hangs while it starts must end with its worker all the same.
__attribute__((constructor)) static void end_with_parent(void) {
    const char *variable = getenv("HOIST_CHILD");
    if (variable == NULL) return;
    struct stat channel;
    // A program that a child starts inherits the variable, but not the channel.
    if (fstat(3, &channel) != 0 || !S_ISSOCK(channel.st_mode)) return;
    long parent = strtol(variable, NULL, 10);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
}
#endif

void hoist_become_child(void) {
    // Line buffering: output left in a buffer is lost when the process dies.
    setvbuf(stdout, NULL, _IOLBF, 0);
    // Handled and not ignored: an ignored signal stays ignored in programs that a job starts.
    handle(SIGTERM, do_nothing);
    handle(SIGINT, do_nothing);
#ifdef __linux__
    handle(SIGRTMAX, end_group);
    prctl(PR_SET_PDEATHSIG, SIGRTMAX);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    // When the whole machine runs out of memory, the system should kill the job and not its worker.
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t written = write(file, "500", 3);
        (void)written;
        close(file);
    }
#endif
}

void hoist_signal_at_parents_death(int signal) {
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, signal);
#else
    (void)signal;
#endif
}

int hoist_has_children(void) {
    siginfo_t information;
    return waitid(P_ALL, 0, &information, WEXITED | WNOHANG | WNOWAIT) == 0;
}

void hoist_limit_memory(uint64_t bytes) {
#ifdef __linux__
    struct rlimit limit;
    if (getrlimit(RLIMIT_DATA, &limit) != 0) return;
    limit.rlim_cur = bytes == 0 || bytes > limit.rlim_max ? limit.rlim_max : bytes;
    setrlimit(RLIMIT_DATA, &limit);
#else
    (void)bytes;
#endif
}

int64_t hoist_cpu_microseconds(void) {
    struct rusage own, children;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    return microseconds(&own) + microseconds(&children);
}

extern char **environ;

char **hoist_environment(void) { return environ; }

int64_t hoist_uptime(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

int hoist_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t uptime) {
#ifdef __APPLE__
    int64_t left = uptime - hoist_uptime();
    if (left < 0) left = 0;
    struct timespec time = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
    return pthread_cond_timedwait_relative_np(condition, mutex, &time);
#else
    struct timespec time = {.tv_sec = uptime / 1000000, .tv_nsec = uptime % 1000000 * 1000};
    return pthread_cond_timedwait(condition, mutex, &time);
#endif
}

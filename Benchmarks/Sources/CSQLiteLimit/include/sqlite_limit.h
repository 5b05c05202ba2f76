#pragma once

/// The statements of a job's life on SQLite, bare, through the C interface, in batches of `batch` per transaction.
/// Returns jobs per second, or a negative SQLite error code.
double sqlite_limit_enqueue(const char *path, int jobs, int batch);
double sqlite_limit_process(const char *path, int batch);

#include "sqlite_limit.h"
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static const char *schema =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=OFF; PRAGMA cache_size=-16000;"
    "CREATE TABLE IF NOT EXISTS job (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, line INTEGER NOT NULL, state INTEGER NOT NULL,"
    " priority INTEGER NOT NULL, retries INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,"
    " cancel INTEGER NOT NULL DEFAULT 0, at_most_once INTEGER NOT NULL DEFAULT 0, worker INTEGER, due INTEGER, expires INTEGER,"
    " enqueued INTEGER NOT NULL, started INTEGER, ended INTEGER, purge INTEGER, retention INTEGER, unique_key TEXT,"
    " revision INTEGER NOT NULL DEFAULT 1);"
    "CREATE INDEX IF NOT EXISTS job_ready ON job (line, priority DESC) WHERE state = 0;"
    "CREATE INDEX IF NOT EXISTS job_due ON job (line, due) WHERE state IN (1, 2);"
    "CREATE INDEX IF NOT EXISTS job_expires ON job (expires) WHERE expires IS NOT NULL AND state IN (0, 1, 2);"
    "CREATE INDEX IF NOT EXISTS job_running ON job (worker) WHERE state = 3;"
    "CREATE INDEX IF NOT EXISTS job_cancel ON job (worker) WHERE state = 3 AND cancel = 1;"
    "CREATE INDEX IF NOT EXISTS job_failed ON job (line, ended) WHERE state = 5;"
    "CREATE INDEX IF NOT EXISTS job_purge ON job (purge) WHERE purge IS NOT NULL;"
    "CREATE TABLE IF NOT EXISTS payload (seq INTEGER PRIMARY KEY, message BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS result (seq INTEGER PRIMARY KEY, output BLOB, failure BLOB, progress BLOB);";

static sqlite3 *open_db(const char *path) {
    sqlite3 *db = NULL;
    if (sqlite3_open(path, &db) != SQLITE_OK) return NULL;
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK) return NULL;
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK) fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    return s;
}

static void run(sqlite3_stmt *s) {
    sqlite3_step(s);
    sqlite3_reset(s);
}

double sqlite_limit_enqueue(const char *path, int jobs, int batch) {
    sqlite3 *db = open_db(path);
    if (!db) return -1;
    sqlite3_stmt *begin = prepare(db, "BEGIN IMMEDIATE"), *commit = prepare(db, "COMMIT");
    sqlite3_stmt *insert = prepare(db,
        "INSERT INTO job (id, line, state, priority, retries, at_most_once, due, expires, enqueued, retention, unique_key)"
        " VALUES (?, 1, 0, 0, 0, 0, NULL, NULL, ?, NULL, NULL) ON CONFLICT (id) DO NOTHING");
    sqlite3_stmt *payload = prepare(db, "INSERT INTO payload (seq, message) VALUES (last_insert_rowid(), ?)");
    static char message[900];
    memset(message, 'x', sizeof message);
    char id[40];
    double start = seconds();
    for (int i = 0; i < jobs; i++) {
        if (i % batch == 0) run(begin);
        snprintf(id, sizeof id, "01930000-0000-7000-8000-%012d", i);
        sqlite3_bind_text(insert, 1, id, -1, SQLITE_TRANSIENT);
        sqlite3_bind_int64(insert, 2, 1700000000000000 + i);
        run(insert);
        sqlite3_bind_blob(payload, 1, message, sizeof message, SQLITE_TRANSIENT);
        run(payload);
        if (i % batch == batch - 1 || i == jobs - 1) run(commit);
    }
    double rate = jobs / (seconds() - start);
    sqlite3_stmt *all[] = {begin, commit, insert, payload};
    for (int i = 0; i < 4; i++) sqlite3_finalize(all[i]);
    sqlite3_close(db);
    return rate;
}

double sqlite_limit_process(const char *path, int batch) {
    sqlite3 *db = open_db(path);
    if (!db) return -1;
    sqlite3_stmt *begin = prepare(db, "BEGIN IMMEDIATE"), *commit = prepare(db, "COMMIT");
    sqlite3_stmt *heads = prepare(db,
        "SELECT seq, priority FROM job INDEXED BY job_ready WHERE state = 0 AND line = 1 ORDER BY priority DESC, seq LIMIT ?");
    sqlite3_stmt *read = prepare(db,
        "SELECT j.id, j.line, j.retries, j.token, j.lost, j.expires, j.unique_key, p.message FROM job j"
        " LEFT JOIN payload p ON p.seq = j.seq WHERE j.seq = ?");
    sqlite3_stmt *take = prepare(db, "UPDATE job SET state = 3, worker = 1, token = 1, started = ?, revision = revision + 1 WHERE seq = ?");
    sqlite3_stmt *finish = prepare(db,
        "UPDATE job SET state = 4, ended = ?1, purge = ?1 + coalesce(NULL, retention, 86400000000), revision = revision + 1"
        " WHERE seq = ?2 AND state = 3 AND worker = 1 AND token = 1");
    sqlite3_stmt *result = prepare(db,
        "INSERT INTO result (seq, output) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET output = excluded.output");
    sqlite3_int64 held[1024];
    int heldCount = 0, done = 0;
    volatile int bytes = 0;
    double start = seconds();
    for (;;) {
        run(begin);
        for (int i = 0; i < heldCount; i++) {
            sqlite3_bind_int64(finish, 1, 1700000000000000 + done);
            sqlite3_bind_int64(finish, 2, held[i]);
            run(finish);
            sqlite3_bind_int64(result, 1, held[i]);
            sqlite3_bind_blob(result, 2, "1", 1, SQLITE_TRANSIENT);
            run(result);
            done++;
        }
        heldCount = 0;
        sqlite3_bind_int(heads, 1, batch);
        while (sqlite3_step(heads) == SQLITE_ROW) held[heldCount++] = sqlite3_column_int64(heads, 0);
        sqlite3_reset(heads);
        for (int i = 0; i < heldCount; i++) {
            sqlite3_bind_int64(read, 1, held[i]);
            if (sqlite3_step(read) == SQLITE_ROW) bytes += sqlite3_column_bytes(read, 7) + sqlite3_column_bytes(read, 0);
            sqlite3_reset(read);
            sqlite3_bind_int64(take, 1, 1700000000000000 + done);
            sqlite3_bind_int64(take, 2, held[i]);
            run(take);
        }
        run(commit);
        if (heldCount == 0) break;
    }
    double rate = done / (seconds() - start);
    sqlite3_stmt *all[] = {begin, commit, heads, read, take, finish, result};
    for (int i = 0; i < 7; i++) sqlite3_finalize(all[i]);
    sqlite3_close(db);
    return rate;
}

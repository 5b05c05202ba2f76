import GRDB

/// The tables of the history.
enum HistorySchema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { try $0.execute(sql: first) }
        migrator.registerMigration("2") { try $0.execute(sql: users) }
        return migrator
    }

    private static let users = """
        CREATE TABLE user (name TEXT PRIMARY KEY, role TEXT NOT NULL, cost TEXT NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE token (name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, rights TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE session (hash BLOB PRIMARY KEY, user TEXT NOT NULL, begun REAL NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
        CREATE INDEX session_user ON session (user);
        """

    private static let first = """
        CREATE TABLE backend (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
        CREATE TABLE label (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value));
        CREATE TABLE job (
            seq INTEGER PRIMARY KEY, backend INTEGER NOT NULL, id TEXT NOT NULL,
            name INTEGER, queue INTEGER, worker INTEGER, lane TEXT, state INTEGER NOT NULL, touched REAL NOT NULL,
            sent REAL, received REAL, started REAL, ended REAL, due REAL, expires REAL, run REAL,
            retries INTEGER NOT NULL, positional TEXT, keyword TEXT, result TEXT, error TEXT, traceback TEXT,
            root TEXT, parent TEXT
        );
        CREATE UNIQUE INDEX job_id ON job (backend, id);
        CREATE INDEX job_backend ON job (backend);
        CREATE INDEX job_state ON job (backend, state, seq);
        CREATE INDEX job_name ON job (backend, name, seq);
        CREATE INDEX job_queue ON job (backend, queue, seq);
        CREATE INDEX job_worker ON job (backend, worker, seq);
        CREATE INDEX job_parent ON job (backend, parent) WHERE parent IS NOT NULL;
        CREATE INDEX job_root ON job (backend, root) WHERE root IS NOT NULL;
        CREATE INDEX job_touched ON job (state, touched);
        CREATE VIEW job_words AS
            SELECT seq AS rowid, (SELECT value FROM label WHERE id = job.name) AS name, positional, keyword, error FROM job;
        CREATE VIRTUAL TABLE job_text USING fts5 (
            name, positional, keyword, error, content = 'job_words', tokenize = 'unicode61', detail = none, prefix = '2 3'
        );
        CREATE TRIGGER job_text_insert AFTER INSERT ON job BEGIN
            INSERT INTO job_text (rowid, name, positional, keyword, error) VALUES (
                new.seq, (SELECT value FROM label WHERE id = new.name), new.positional, new.keyword, new.error);
        END;
        CREATE TRIGGER job_text_delete AFTER DELETE ON job BEGIN
            INSERT INTO job_text (job_text, rowid, name, positional, keyword, error) VALUES (
                'delete', old.seq, (SELECT value FROM label WHERE id = old.name), old.positional, old.keyword, old.error);
            DELETE FROM attempt WHERE job = old.seq;
        END;
        CREATE TRIGGER job_text_update AFTER UPDATE OF name, positional, keyword, error ON job
        WHEN old.name IS NOT new.name OR old.positional IS NOT new.positional OR old.keyword IS NOT new.keyword
            OR old.error IS NOT new.error
        BEGIN
            INSERT INTO job_text (job_text, rowid, name, positional, keyword, error) VALUES (
                'delete', old.seq, (SELECT value FROM label WHERE id = old.name), old.positional, old.keyword, old.error);
            INSERT INTO job_text (rowid, name, positional, keyword, error) VALUES (
                new.seq, (SELECT value FROM label WHERE id = new.name), new.positional, new.keyword, new.error);
        END;
        CREATE TABLE attempt (
            job INTEGER NOT NULL, number INTEGER NOT NULL, worker INTEGER, received REAL, started REAL, ended REAL,
            state INTEGER, error TEXT, PRIMARY KEY (job, number)
        ) WITHOUT ROWID;
        CREATE TABLE cell (
            backend INTEGER NOT NULL, step INTEGER NOT NULL, kind INTEGER NOT NULL, label INTEGER NOT NULL,
            at INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, retried INTEGER NOT NULL,
            cancelled INTEGER NOT NULL, runs BLOB NOT NULL, waits BLOB NOT NULL,
            PRIMARY KEY (backend, step, kind, label, at)
        ) WITHOUT ROWID;
        CREATE INDEX cell_age ON cell (step, at);
        CREATE TABLE depth (
            backend INTEGER NOT NULL, step INTEGER NOT NULL, queue INTEGER NOT NULL, at INTEGER NOT NULL,
            waiting INTEGER NOT NULL, oldest REAL, PRIMARY KEY (backend, step, queue, at)
        ) WITHOUT ROWID;
        CREATE INDEX depth_at ON depth (backend, step, at);
        CREATE INDEX depth_age ON depth (step, at);
        CREATE TABLE gap (backend INTEGER NOT NULL, begun REAL NOT NULL, ended REAL NOT NULL);
        CREATE INDEX gap_end ON gap (backend, ended);
        CREATE TABLE audit (
            id INTEGER PRIMARY KEY, at REAL NOT NULL, backend TEXT NOT NULL, author TEXT NOT NULL, action TEXT NOT NULL,
            target TEXT NOT NULL, count INTEGER NOT NULL, result TEXT NOT NULL
        );
        """
}

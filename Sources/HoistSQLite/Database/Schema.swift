import GRDB
import Hoist

/// The tables, and the migration of an older file.
///
/// `job` is narrow, because it is written three times in a job's life. The message and the result have tables of their
/// own and are written once.
enum Schema {
    static let version = 7
    /// "Hois" in ASCII: distinguishes Hoist's files from those of other programs.
    static let applicationID = 0x486F_6973

    static func prepare(_ queue: DatabaseQueue, path: String) throws {
        try queue.writeWithoutTransaction { database in
            try database.inTransaction(.immediate) {
                let found = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
                let owner = try Int.fetchOne(database, sql: "PRAGMA application_id") ?? 0
                let isEmpty = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master") == 0
                guard isEmpty || owner == applicationID else {
                    throw BackendError(
                        .incompatible, "\(path) is a SQLite database of another program; name another file")
                }
                guard found <= version else {
                    throw BackendError(
                        .incompatible,
                        "\(path) has schema version \(found) and this program knows \(version); run a newer version of the program"
                    )
                }
                if found < 1 { try database.execute(sql: versionOne) }
                if found < 2 { try database.execute(sql: versionTwo) }
                if found < 3 { try database.execute(sql: versionThree) }
                if found < 4 { try database.execute(sql: versionFour) }
                if found < 5 { try database.execute(sql: versionFive) }
                if found < 6 { try database.execute(sql: versionSix) }
                if found < 7 { try database.execute(sql: versionSeven) }
                try database.execute(sql: "PRAGMA application_id = \(applicationID)")
                try database.execute(sql: "PRAGMA user_version = \(version)")
                return .commit
            }
        }
    }

    // state: see StoredState. Times are microseconds since 1970; worker.lease_until is microseconds of machine uptime.
    private static let versionOne = """
        CREATE TABLE line (
            id INTEGER PRIMARY KEY, queue TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (queue, name)
        );
        CREATE TABLE job (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            line INTEGER NOT NULL,
            state INTEGER NOT NULL,
            priority INTEGER NOT NULL,
            retries INTEGER NOT NULL DEFAULT 0,
            token INTEGER NOT NULL DEFAULT 0,
            lost INTEGER NOT NULL DEFAULT 0,
            cancel INTEGER NOT NULL DEFAULT 0,
            at_most_once INTEGER NOT NULL DEFAULT 0,
            worker INTEGER,
            due INTEGER,
            expires INTEGER,
            enqueued INTEGER NOT NULL,
            started INTEGER,
            ended INTEGER,
            purge INTEGER,
            retention INTEGER,
            unique_key TEXT,
            revision INTEGER NOT NULL DEFAULT 1
        );
        CREATE INDEX job_ready ON job (line, priority DESC) WHERE state = 0;
        CREATE INDEX job_due ON job (line, due) WHERE state IN (1, 2);
        CREATE INDEX job_expires ON job (expires) WHERE expires IS NOT NULL AND state IN (0, 1, 2);
        CREATE INDEX job_running ON job (worker) WHERE state = 3;
        CREATE INDEX job_cancel ON job (worker) WHERE state = 3 AND cancel = 1;
        CREATE INDEX job_failed ON job (line, ended) WHERE state = 5;
        CREATE INDEX job_purge ON job (purge) WHERE purge IS NOT NULL;
        CREATE TABLE payload (seq INTEGER PRIMARY KEY, message BLOB NOT NULL);
        CREATE TABLE result (seq INTEGER PRIMARY KEY, output BLOB, failure BLOB, progress BLOB);
        CREATE TABLE attempt (seq INTEGER NOT NULL, ordinal INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (seq, ordinal)) WITHOUT ROWID;
        CREATE TABLE unique_key (
            key TEXT PRIMARY KEY, holder TEXT NOT NULL, scope TEXT NOT NULL, seconds REAL NOT NULL, until INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX unique_key_until ON unique_key (until) WHERE until IS NOT NULL;
        CREATE TABLE worker (
            id INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL UNIQUE, name TEXT NOT NULL, boot TEXT NOT NULL,
            lease_until INTEGER NOT NULL, seen INTEGER NOT NULL, presence BLOB NOT NULL
        );
        CREATE INDEX worker_live ON worker (lease_until) WHERE lease_until > 0;
        """

    // Adds the resource usage and the log of a job's attempt.
    private static let versionTwo = """
        ALTER TABLE result ADD COLUMN usage BLOB;
        CREATE TABLE job_log (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
        """

    // Results of jobs that are not in `job`: the rest of a chain whose step has failed, or jobs of another broker.
    private static let versionThree = """
        CREATE TABLE foreign_result (
            id TEXT PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL, purge INTEGER,
            revision INTEGER NOT NULL DEFAULT 1
        ) WITHOUT ROWID;
        CREATE TABLE foreign_log (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE frame (
            id INTEGER PRIMARY KEY AUTOINCREMENT, exchange TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
            sent INTEGER NOT NULL
        );
        CREATE INDEX frame_sent ON frame (sent);
        CREATE TABLE frame_listener (
            id TEXT NOT NULL, exchange TEXT NOT NULL, listeners INTEGER NOT NULL, until INTEGER NOT NULL,
            PRIMARY KEY (id, exchange)
        ) WITHOUT ROWID;
        CREATE TABLE stored_value (key TEXT PRIMARY KEY, value BLOB NOT NULL, until INTEGER) WITHOUT ROWID;
        CREATE INDEX foreign_result_purge ON foreign_result (purge) WHERE purge IS NOT NULL;
        """

    // Counts ended jobs without reading them.
    private static let versionFour = """
        CREATE INDEX job_ended ON job (line, state) WHERE state IN (4, 6, 7);
        DROP INDEX job_due;
        CREATE INDEX job_due ON job (line, due, state) WHERE state IN (1, 2);
        """

    // The length of each lease, in microseconds: tells when its worker last renewed it. And what was said about queues.
    private static let versionFive = """
        ALTER TABLE worker ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE queue_rule (
            queue TEXT PRIMARY KEY, paused INTEGER NOT NULL DEFAULT 0, closed_until INTEGER, capacity INTEGER
        ) WITHOUT ROWID;
        ALTER TABLE job ADD COLUMN partition TEXT;
        ALTER TABLE job ADD COLUMN cost INTEGER;
        CREATE TABLE start_limit (
            target TEXT NOT NULL, origin TEXT NOT NULL, limits BLOB NOT NULL, PRIMARY KEY (target, origin)
        ) WITHOUT ROWID;
        CREATE TABLE limit_alias (alias TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE permit (
            scope TEXT NOT NULL, seq INTEGER NOT NULL, since INTEGER NOT NULL, keeps_place INTEGER NOT NULL,
            PRIMARY KEY (scope, seq)
        ) WITHOUT ROWID;
        CREATE INDEX permit_job ON permit (seq);
        CREATE TABLE start_rate (scope TEXT PRIMARY KEY, used_until INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE partition_turn (
            queue TEXT NOT NULL, partition TEXT NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (queue, partition)
        ) WITHOUT ROWID;
        CREATE INDEX partition_turn_order ON partition_turn (queue, turn);
        """

    // Jobs that repeat. A revision is never used twice, also when a schedule is removed and put again.
    private static let versionSix = """
        CREATE TABLE schedule (
            revision INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL, wake INTEGER,
            body BLOB NOT NULL
        );
        CREATE INDEX schedule_wake ON schedule (app, wake) WHERE wake IS NOT NULL;
        CREATE TABLE schedule_entry (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, schedule TEXT NOT NULL, body BLOB NOT NULL
        );
        CREATE INDEX schedule_entry_order ON schedule_entry (schedule, seq);
        """

    // Groups whose members are counted, and workflows. A group that is over has no parts any more.
    private static let versionSeven = """
        CREATE TABLE job_group (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, size INTEGER, tree BLOB, ended INTEGER NOT NULL DEFAULT 0,
            completed_by TEXT, is_over INTEGER NOT NULL DEFAULT 0, until INTEGER NOT NULL
        );
        CREATE INDEX job_group_until ON job_group (until);
        CREATE TABLE job_group_part (
            grp INTEGER NOT NULL, member TEXT NOT NULL, place INTEGER, state INTEGER NOT NULL, output BLOB, failure BLOB,
            PRIMARY KEY (grp, member)
        ) WITHOUT ROWID;
        CREATE TABLE workflow (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL,
            created INTEGER NOT NULL, ended INTEGER, purge INTEGER NOT NULL, body BLOB NOT NULL
        );
        CREATE INDEX workflow_purge ON workflow (purge);
        """
}

/// The numbers of `job.state`. They are stored: never change one.
enum StoredState: Int64, CaseIterable {
    case waiting = 0
    case scheduled, retrying, running, succeeded, failed, cancelled, expired

    init(_ state: JobState) {
        self =
            switch state {
            case .waiting: .waiting
            case .scheduled: .scheduled
            case .retrying: .retrying
            case .running: .running
            case .succeeded: .succeeded
            case .failed: .failed
            case .cancelled: .cancelled
            case .expired: .expired
            }
    }

    var state: JobState {
        switch self {
        case .waiting: .waiting
        case .scheduled: .scheduled
        case .retrying: .retrying
        case .running: .running
        case .succeeded: .succeeded
        case .failed: .failed
        case .cancelled: .cancelled
        case .expired: .expired
        }
    }
}

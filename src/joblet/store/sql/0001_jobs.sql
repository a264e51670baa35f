-- AUTOINCREMENT: an id is never used twice, not even after its job has been deleted.
CREATE TABLE jobs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    command     TEXT    NOT NULL,
    args        TEXT    NOT NULL,            -- JSON array of strings
    max_cpu     INTEGER NOT NULL,
    max_memory  INTEGER NOT NULL,
    max_iobps   INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,            -- instants: nanoseconds since the epoch
    started_at  INTEGER,
    exec_at     INTEGER,
    ended_at    INTEGER,
    exit_code   INTEGER NOT NULL DEFAULT 0,
    reason      TEXT    NOT NULL DEFAULT '',
    stop_reason TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX jobs_unfinished ON jobs (id) WHERE state IN ('PENDING', 'INITIALIZING', 'RUNNING');

ALTER TABLE jobs ADD COLUMN labels           TEXT    NOT NULL DEFAULT '{}';  -- JSON object of strings
ALTER TABLE jobs ADD COLUMN schedule         TEXT;                           -- JSON object, as it was asked for
ALTER TABLE jobs ADD COLUMN scheduled_at     INTEGER;
ALTER TABLE jobs ADD COLUMN schedule_id      INTEGER;
ALTER TABLE jobs ADD COLUMN queued           INTEGER NOT NULL DEFAULT 0;     -- waits for the others of its schedule
ALTER TABLE jobs ADD COLUMN retries          INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN retry_delay_ms   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN tries            INTEGER NOT NULL DEFAULT 1;     -- which one of its attempts this is
ALTER TABLE jobs ADD COLUMN retry_of         INTEGER;
ALTER TABLE jobs ADD COLUMN retried_by       INTEGER;
ALTER TABLE jobs ADD COLUMN takes_input      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN terminal         TEXT;                           -- JSON array: rows, columns, TERM
ALTER TABLE jobs ADD COLUMN separate_streams INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN paused_by        TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN stop_signal      INTEGER NOT NULL DEFAULT 15;
ALTER TABLE jobs ADD COLUMN stop_grace_ms    INTEGER;                        -- NULL: the server's own

DROP INDEX jobs_unfinished;
CREATE INDEX jobs_unfinished ON jobs (id) WHERE state IN ('SCHEDULED', 'PENDING', 'INITIALIZING', 'RUNNING');

-- A job that has waited for its time comes into the queue at none of its other times.
DROP TRIGGER job_moved;
CREATE TRIGGER job_moved AFTER UPDATE OF state ON jobs WHEN new.state != old.state BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt)
    VALUES (CASE new.state WHEN 'PENDING'
                THEN max(new.created_at, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000000)
                ELSE coalesce(new.ended_at, new.exec_at, new.started_at, new.created_at) END,
            new.state, new.workflow_id, new.id, new.name, new.exit_code, new.reason, coalesce(new.attempt, 0));
END;

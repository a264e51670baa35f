ALTER TABLE jobs ADD COLUMN labels           TEXT    NOT NULL DEFAULT '{}';  -- JSON object of strings
ALTER TABLE jobs ADD COLUMN schedule         TEXT;                           -- JSON object, as it was asked for
ALTER TABLE jobs ADD COLUMN scheduled_at     INTEGER;
ALTER TABLE jobs ADD COLUMN schedule_id      INTEGER;
ALTER TABLE jobs ADD COLUMN retries          INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN retry_delay_ms   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN tries            INTEGER NOT NULL DEFAULT 1;     -- which one of its attempts this is
ALTER TABLE jobs ADD COLUMN retry_of         INTEGER;
ALTER TABLE jobs ADD COLUMN retried_by       INTEGER;
ALTER TABLE jobs ADD COLUMN takes_input      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN terminal         TEXT;                           -- JSON array: rows, columns, TERM
ALTER TABLE jobs ADD COLUMN separate_streams INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN paused_by        TEXT    NOT NULL DEFAULT '';

DROP INDEX jobs_unfinished;
CREATE INDEX jobs_unfinished ON jobs (id) WHERE state IN ('SCHEDULED', 'PENDING', 'INITIALIZING', 'RUNNING');

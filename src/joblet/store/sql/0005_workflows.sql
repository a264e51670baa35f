ALTER TABLE jobs ADD COLUMN name         TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN environment  TEXT NOT NULL DEFAULT '{}';  -- JSON object of strings, as all below
ALTER TABLE jobs ADD COLUMN secret_names TEXT NOT NULL DEFAULT '[]';  -- JSON array, to be shown without opening
ALTER TABLE jobs ADD COLUMN secrets      BLOB;                        -- the sealed JSON object
ALTER TABLE jobs ADD COLUMN workdir      TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN uploads      TEXT;                        -- JSON array: the folder, then paths
ALTER TABLE jobs ADD COLUMN outputs      TEXT NOT NULL DEFAULT '{}';
-- What of a workflow the job is; all or none of them.
ALTER TABLE jobs ADD COLUMN workflow_id  INTEGER;
ALTER TABLE jobs ADD COLUMN position     INTEGER;
ALTER TABLE jobs ADD COLUMN attempt      INTEGER;

-- One attempt is one job, whoever asks how often, deleted or not.
CREATE UNIQUE INDEX jobs_part ON jobs (workflow_id, position, attempt) WHERE workflow_id IS NOT NULL;

CREATE TABLE workflows (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, as a job's
    file         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    owner        TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    client_key   TEXT    NOT NULL,
    fingerprint  TEXT    NOT NULL,
    uploads      TEXT    NOT NULL,
    timeout      REAL    NOT NULL,                   -- seconds
    max_parallel INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    timer_from   INTEGER NOT NULL,
    started_at   INTEGER,
    ended_at     INTEGER,
    reason       TEXT    NOT NULL DEFAULT '',
    stop_reason  TEXT    NOT NULL DEFAULT '',
    total        INTEGER NOT NULL,
    completed    INTEGER NOT NULL DEFAULT 0,         -- these four are kept by a trigger
    failed       INTEGER NOT NULL DEFAULT 0,
    stopped      INTEGER NOT NULL DEFAULT 0,
    canceled     INTEGER NOT NULL DEFAULT 0,
    deleted      INTEGER NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (state IN ('PENDING', 'RUNNING')))
) STRICT;

CREATE UNIQUE INDEX workflows_key ON workflows (owner, client_key) WHERE client_key != '' AND deleted = 0;
CREATE INDEX workflows_unfinished ON workflows (id) WHERE ended_at IS NULL;
CREATE INDEX workflows_deleted ON workflows (id) WHERE deleted = 1;
CREATE INDEX workflows_ended ON workflows (ended_at) WHERE ended_at IS NOT NULL AND deleted = 0;

-- What is long and never changes, apart from the row that changes with each step.
CREATE TABLE workflow_files (
    workflow_id INTEGER PRIMARY KEY,
    yaml        TEXT NOT NULL,   -- secrets masked
    parameters  TEXT NOT NULL    -- JSON object, secret ones masked
) STRICT;

CREATE TABLE workflow_steps (
    workflow_id         INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    name                TEXT    NOT NULL,
    spec                TEXT    NOT NULL,            -- JSON object: what the step asks for, without secrets
    secrets             BLOB,                        -- the sealed JSON object
    condition           TEXT    NOT NULL,            -- as an expression
    dependencies        TEXT    NOT NULL,            -- JSON array of names
    retry_limit         INTEGER NOT NULL,
    continue_on_failure INTEGER NOT NULL,
    ended_as            TEXT,
    attempts            INTEGER NOT NULL DEFAULT 0,
    base_attempts       INTEGER NOT NULL DEFAULT 0,  -- those before the workflow was last tried again
    job_id              INTEGER,
    started_at          INTEGER,
    ended_at            INTEGER,
    exit_code           INTEGER NOT NULL DEFAULT 0,
    reason              TEXT    NOT NULL DEFAULT '',
    retry_at            INTEGER,
    outputs             TEXT    NOT NULL DEFAULT '{}',
    PRIMARY KEY (workflow_id, position)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER steps_counted AFTER UPDATE OF ended_as ON workflow_steps WHEN new.ended_as IS NOT old.ended_as BEGIN
    UPDATE workflows SET
        completed = completed + (new.ended_as IS 'COMPLETED') - (old.ended_as IS 'COMPLETED'),
        failed    = failed    + (new.ended_as IS 'FAILED')    - (old.ended_as IS 'FAILED'),
        stopped   = stopped   + (new.ended_as IS 'STOPPED')   - (old.ended_as IS 'STOPPED'),
        canceled  = canceled  + (new.ended_as IS 'CANCELED')  - (old.ended_as IS 'CANCELED')
    WHERE id = new.workflow_id;
END;

-- What has happened, in the transaction in which it is recorded. The numbers ascend and are never used twice.
CREATE TABLE events (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    status      TEXT    NOT NULL,
    workflow_id INTEGER,
    job_id      INTEGER,
    name        TEXT    NOT NULL,
    exit_code   INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    attempt     INTEGER NOT NULL
) STRICT;

-- Within one of them rows are in order of sequence, which is the rowid.
CREATE INDEX events_of_workflow ON events (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX events_of_job ON events (job_id) WHERE job_id IS NOT NULL;

CREATE TRIGGER job_made AFTER INSERT ON jobs BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt)
    VALUES (new.created_at, new.state, new.workflow_id, new.id, new.name, new.exit_code, new.reason,
            coalesce(new.attempt, 0));
END;

CREATE TRIGGER job_moved AFTER UPDATE OF state ON jobs WHEN new.state != old.state BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt)
    VALUES (coalesce(new.ended_at, new.exec_at, new.started_at, new.created_at), new.state, new.workflow_id, new.id,
            new.name, new.exit_code, new.reason, coalesce(new.attempt, 0));
END;

CREATE TRIGGER workflow_made AFTER INSERT ON workflows BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt)
    VALUES (new.created_at, new.state, new.id, '', 0, new.reason, 0);
END;

CREATE TRIGGER workflow_moved AFTER UPDATE OF state ON workflows WHEN new.state != old.state BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt)
    VALUES (coalesce(new.ended_at, max(new.timer_from, coalesce(new.started_at, 0))), new.state, new.id, '', 0,
            new.reason, 0);
END;

-- The end of a step is its job's, but where there was no job, or none that has just ended.
CREATE TRIGGER step_ended AFTER UPDATE OF ended_as ON workflow_steps
WHEN old.ended_as IS NULL AND new.ended_as IS NOT NULL
     AND (new.job_id IS NULL OR (old.retry_at IS NOT NULL AND new.attempts = old.attempts)) BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt)
    VALUES (coalesce(new.ended_at, (SELECT timer_from FROM workflows WHERE id = new.workflow_id)), new.ended_as, new.workflow_id, new.job_id, new.name, new.exit_code, new.reason,
            new.attempts);
END;

-- It waits for the next attempt, for the last one failed or all of it is tried again; and that has not been made meanwhile.
CREATE TRIGGER step_waits AFTER UPDATE OF ended_as, retry_at ON workflow_steps
WHEN new.ended_as IS NULL AND (old.ended_as IS NOT NULL OR (new.retry_at IS NOT NULL AND new.attempts != old.attempts))
     AND NOT EXISTS (SELECT 1 FROM jobs WHERE workflow_id = new.workflow_id AND position = new.position
                     AND attempt = new.attempts + 1) BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt)
    VALUES (coalesce(new.ended_at, (SELECT timer_from FROM workflows WHERE id = new.workflow_id)), 'PENDING',
            new.workflow_id, new.name, 0, new.reason, new.attempts + 1);
END;

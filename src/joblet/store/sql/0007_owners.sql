-- The role that the owner had when it ordered the job: whose ceilings and quota hold for what comes of it.
ALTER TABLE jobs ADD COLUMN role TEXT NOT NULL DEFAULT '';

-- Whose job or workflow it is of, which may be gone before its events are.
ALTER TABLE events ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE events SET owner = coalesce(
    (SELECT owner FROM jobs WHERE id = events.job_id),
    (SELECT owner FROM workflows WHERE id = events.workflow_id),
    '');

-- Within one owner's rows are in order of id, which is the rowid.
CREATE INDEX jobs_of_owner ON jobs (owner) WHERE deleted = 0;
CREATE INDEX workflows_of_owner ON workflows (owner) WHERE deleted = 0;

DROP TRIGGER job_made;
CREATE TRIGGER job_made AFTER INSERT ON jobs BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt, owner)
    VALUES (new.created_at, new.state, new.workflow_id, new.id, new.name, new.exit_code, new.reason,
            coalesce(new.attempt, 0), new.owner);
END;

DROP TRIGGER job_moved;
CREATE TRIGGER job_moved AFTER UPDATE OF state ON jobs WHEN new.state != old.state BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt, owner)
    VALUES (CASE new.state WHEN 'PENDING'
                THEN max(new.created_at, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000000)
                ELSE coalesce(new.ended_at, new.exec_at, new.started_at, new.created_at) END,
            new.state, new.workflow_id, new.id, new.name, new.exit_code, new.reason, coalesce(new.attempt, 0),
            new.owner);
END;

DROP TRIGGER workflow_made;
CREATE TRIGGER workflow_made AFTER INSERT ON workflows BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt, owner)
    VALUES (new.created_at, new.state, new.id, '', 0, new.reason, 0, new.owner);
END;

DROP TRIGGER workflow_moved;
CREATE TRIGGER workflow_moved AFTER UPDATE OF state ON workflows WHEN new.state != old.state BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt, owner)
    VALUES (coalesce(new.ended_at, max(new.timer_from, coalesce(new.started_at, 0))), new.state, new.id, '', 0,
            new.reason, 0, new.owner);
END;

DROP TRIGGER step_ended;
CREATE TRIGGER step_ended AFTER UPDATE OF ended_as ON workflow_steps
WHEN old.ended_as IS NULL AND new.ended_as IS NOT NULL
     AND (new.job_id IS NULL OR (old.retry_at IS NOT NULL AND new.attempts = old.attempts)) BEGIN
    INSERT INTO events (at, status, workflow_id, job_id, name, exit_code, reason, attempt, owner)
    SELECT coalesce(new.ended_at, timer_from), new.ended_as, id, new.job_id, new.name, new.exit_code, new.reason,
           new.attempts, owner
    FROM workflows WHERE id = new.workflow_id;
END;

DROP TRIGGER step_waits;
CREATE TRIGGER step_waits AFTER UPDATE OF ended_as, retry_at ON workflow_steps
WHEN new.ended_as IS NULL AND (old.ended_as IS NOT NULL OR (new.retry_at IS NOT NULL AND new.attempts != old.attempts))
     AND NOT EXISTS (SELECT 1 FROM jobs WHERE workflow_id = new.workflow_id AND position = new.position
                     AND attempt = new.attempts + 1) BEGIN
    INSERT INTO events (at, status, workflow_id, name, exit_code, reason, attempt, owner)
    SELECT coalesce(new.ended_at, timer_from), 'PENDING', id, new.name, 0, new.reason, new.attempts + 1, owner
    FROM workflows WHERE id = new.workflow_id;
END;

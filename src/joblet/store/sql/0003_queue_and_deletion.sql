ALTER TABLE jobs ADD COLUMN timeout_ms INTEGER NOT NULL DEFAULT 3600000;
ALTER TABLE jobs ADD COLUMN priority   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN client_key TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 0;  -- of an ended job's directory
-- A deleted job is no job any more; its row stays until its directory is gone.
ALTER TABLE jobs ADD COLUMN deleted    INTEGER NOT NULL DEFAULT 0;

-- One order is one job, whoever asks how often: the key is its owner's.
CREATE UNIQUE INDEX jobs_key ON jobs (owner, client_key) WHERE client_key != '' AND deleted = 0;
CREATE INDEX jobs_deleted ON jobs (id) WHERE deleted = 1;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL AND deleted = 0;

ALTER TABLE jobs ADD COLUMN max_processes  INTEGER NOT NULL DEFAULT 1024;
ALTER TABLE jobs ADD COLUMN max_open_files INTEGER NOT NULL DEFAULT 1024;
ALTER TABLE jobs ADD COLUMN max_disk       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cpu_cores      TEXT    NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN receipt        TEXT;   -- JSON object of numbers, when its command has ended

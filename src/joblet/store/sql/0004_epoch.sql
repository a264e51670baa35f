-- The life of the machine in which the job was launched. After its end nothing of the job runs, whatever files it has left.
ALTER TABLE jobs ADD COLUMN epoch TEXT NOT NULL DEFAULT '';

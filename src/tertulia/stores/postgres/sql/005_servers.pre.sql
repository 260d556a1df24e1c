-- Since when workers have known a server, by the start of its process: one that took over from
-- another may have been started long before.
CREATE TABLE tertulia.servers (
    started timestamptz PRIMARY KEY,
    seen timestamptz NOT NULL
);
-- Where a worker took its lock; NULL for code that is older than this.
ALTER TABLE tertulia.workers ADD COLUMN server timestamptz;

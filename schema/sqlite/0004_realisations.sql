-- Realisations as they are served, by their path: the text is the whole truth. Times are milliseconds
-- since the epoch, UTC. `uploaded` is 1 where a client sent it, which no upstream can replace.
-- `verified_by` is the public key that vouched for it, "upload" for the right to upload, or NULL;
-- `signed_by` the public key of our own signature.
CREATE TABLE realisations (
    name VARCHAR(512) NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    upstream TEXT NOT NULL,
    uploaded SMALLINT NOT NULL CHECK (uploaded IN (0, 1)),
    verified_by TEXT,
    signed_by TEXT,
    fetched_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL
);

-- Finds those that no client has asked for in a long time.
CREATE INDEX realisations_used ON realisations (uploaded, last_used_at);

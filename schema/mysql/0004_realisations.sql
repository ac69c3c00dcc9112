-- Realisations as they are served, by their path: the text has all facts. Times are milliseconds
-- since 1970, UTC. `uploaded` is 1 if a client sent it; then no upstream can replace it.
-- `verified_by` is the public key that vouched for it, "upload" for the right to upload, or NULL;
-- `signed_by` the public key of the signature of ncps.
CREATE TABLE realisations (
    name VARCHAR(512) NOT NULL PRIMARY KEY,
    value MEDIUMTEXT NOT NULL,
    upstream MEDIUMTEXT NOT NULL,
    uploaded SMALLINT NOT NULL CHECK (uploaded IN (0, 1)),
    verified_by TEXT,
    signed_by TEXT,
    fetched_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- For the search for realisations that were unused for long.
CREATE INDEX realisations_used ON realisations (uploaded, last_used_at);

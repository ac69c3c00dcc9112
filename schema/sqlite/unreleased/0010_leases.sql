-- Only PostgreSQL keeps leases in tables (--cache-lock-backend). The other engines have these two
-- tables as well, so that all engines have the same schema.
-- The number of the last lease that was granted, in one row.
CREATE TABLE lease_fence (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    fence BIGINT NOT NULL
);

-- The address of the process whose session holds locks, by the process id of the session.
CREATE TABLE lease_sessions (
    pid INTEGER NOT NULL PRIMARY KEY,
    address TEXT NOT NULL
);

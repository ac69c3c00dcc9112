-- Leases of --cache-lock-backend=postgresql are advisory locks; here is what these cannot hold.
-- The number of the last lease that was granted, in one row.
CREATE TABLE lease_fence (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    fence BIGINT NOT NULL
);

-- Where the process is reached whose session holds locks, by the process id of the session.
CREATE TABLE lease_sessions (
    pid INTEGER NOT NULL PRIMARY KEY,
    address TEXT NOT NULL
);

-- Leases are advisory locks; here is what these cannot hold. Other engines do not use the tables.
-- The number of the last lease that was granted, in one row.
CREATE TABLE lease_fence (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    fence BIGINT NOT NULL
);

-- Where the process is reached whose session holds advisory locks, by the process id of the session.
CREATE TABLE lease_sessions (
    pid INTEGER PRIMARY KEY,
    address TEXT NOT NULL
);

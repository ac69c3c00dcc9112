-- Leases are not kept here: these tables serve on PostgreSQL alone (--cache-lock-backend), and are the
-- same everywhere so that the schema is one.
-- The number of the last lease that was granted, in one row.
CREATE TABLE lease_fence (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    fence BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Where the process is reached whose session holds locks, by the process id of the session.
CREATE TABLE lease_sessions (
    pid INTEGER NOT NULL PRIMARY KEY,
    address MEDIUMTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

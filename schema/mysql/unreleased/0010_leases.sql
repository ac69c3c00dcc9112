-- Only PostgreSQL keeps leases in tables (--cache-lock-backend). The other engines have these two
-- tables as well, so that all engines have the same schema.
-- The number of the last lease that was granted, in one row.
CREATE TABLE lease_fence (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    fence BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- The address of the process whose session holds locks, by the process id of the session.
CREATE TABLE lease_sessions (
    pid INTEGER NOT NULL PRIMARY KEY,
    address MEDIUMTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

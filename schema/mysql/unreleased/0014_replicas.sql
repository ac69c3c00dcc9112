-- What this cache must not forget though its store does: the public key that it signs with.
CREATE TABLE facts (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    value MEDIUMTEXT NOT NULL,
    changed_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- The daemons that share this database, each as it tells of itself (JSON), and when it last did so.
CREATE TABLE replicas (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    told MEDIUMTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Facts that must survive a loss of the store: the public key that this cache signs with.
CREATE TABLE facts (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    value MEDIUMTEXT NOT NULL,
    changed_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- The daemons that share this database: what each announces (JSON), and when it last did so.
CREATE TABLE replicas (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    told MEDIUMTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

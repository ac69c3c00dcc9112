-- The NAR behind each URL, and its stored bytes. Times are milliseconds since 1970, UTC.
CREATE TABLE nar_files (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(64) NOT NULL,
    extension VARCHAR(8) NOT NULL,
    compression VARCHAR(16) NOT NULL,
    encoding VARCHAR(16) NOT NULL,
    file_size BIGINT CHECK (file_size >= 0),
    file_hash VARCHAR(160),
    nar_size BIGINT CHECK (nar_size >= 0),
    nar_hash VARCHAR(160),
    upstream MEDIUMTEXT NOT NULL,
    origin_url MEDIUMTEXT NOT NULL,
    stored_size BIGINT CHECK (stored_size >= 0),
    stored_at BIGINT,
    verified_at BIGINT,
    last_used_at BIGINT,
    -- The number of the lease under which the bytes were stored; 0 if there was none.
    fence BIGINT NOT NULL DEFAULT 0,
    -- Identifies the stored object among all that had its key; empty or NULL: not known yet.
    stored_tag VARCHAR(160),
    UNIQUE (name, extension),
    CHECK ((stored_at IS NULL) = (stored_size IS NULL))
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX nar_files_last_used_at ON nar_files (last_used_at);

-- A recount of the accounts reads only this index.
CREATE INDEX nar_files_stored_at ON nar_files (stored_at, stored_size);

CREATE INDEX nar_files_verified_at ON nar_files (verified_at, stored_at);

-- For the search for narinfos of the same NAR under other URLs.
CREATE INDEX nar_files_nar_hash ON nar_files (nar_hash);

-- For the search for a stored file by the hash of its bytes, under any name.
CREATE INDEX nar_files_file_hash ON nar_files (file_hash);

-- Narinfos as they are served: the text has all facts, the columns are for searches.
-- `verified_by` is the public key that vouched for a narinfo, or "ca"; `signed_by` the public key
-- of the signature of ncps.
CREATE TABLE narinfos (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    hash VARCHAR(32) NOT NULL UNIQUE,
    nar_file_id BIGINT NOT NULL,
    store_path_name VARCHAR(255) NOT NULL,
    narinfo MEDIUMTEXT NOT NULL,
    upstream MEDIUMTEXT NOT NULL,
    upstream_url MEDIUMTEXT NOT NULL,
    verified SMALLINT NOT NULL CHECK (verified IN (0, 1)),
    fetched_at BIGINT NOT NULL,
    last_used_at BIGINT,
    verified_by TEXT,
    signed_by TEXT,
    -- The search for the oldest NARs reads the last use of their narinfos only from this index.
    -- The foreign key needs this index now, and would make one under another name.
    INDEX narinfos_nar_file_id_used (nar_file_id, last_used_at),
    FOREIGN KEY (nar_file_id) REFERENCES nar_files (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Counters that each transaction that stores or forgets a NAR updates; it locks them last.
CREATE TABLE accounts (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    nars BIGINT NOT NULL,
    bytes BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO accounts (name, nars, bytes) VALUES ('stored', 0, 0);

-- Files that contain another NAR than their narinfo says.
CREATE TABLE wrong_files (
    nar_hash VARCHAR(160) NOT NULL,
    file_hash VARCHAR(160) NOT NULL,
    found_at BIGINT NOT NULL,
    PRIMARY KEY (nar_hash, file_hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX wrong_files_found_at ON wrong_files (found_at);

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

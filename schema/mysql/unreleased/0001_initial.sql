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
    UNIQUE (name, extension),
    CHECK ((stored_at IS NULL) = (stored_size IS NULL))
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX nar_files_last_used_at ON nar_files (last_used_at);

-- Counts and sums read only this index.
CREATE INDEX nar_files_stored_at ON nar_files (stored_at, stored_size);

CREATE INDEX nar_files_verified_at ON nar_files (verified_at, stored_at);

-- Narinfos as they are served: the text has all facts, the columns are for searches.
-- The foreign key needs its index now, and would make one under another name.
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
    INDEX narinfos_nar_file_id (nar_file_id),
    FOREIGN KEY (nar_file_id) REFERENCES nar_files (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX narinfos_last_used_at ON narinfos (last_used_at);

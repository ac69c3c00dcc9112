-- Pins: roots whose closures stay in the store. Ids are never reused, so that rows of
-- `pinned_paths` that belong to a removed pin never become rows of a new pin.
CREATE TABLE pins (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    hash VARCHAR(32) NOT NULL UNIQUE,
    label VARCHAR(255) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    is_fetching SMALLINT NOT NULL,
    -- The facts of the closure at the last check.
    paths BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    size BIGINT NOT NULL,
    looked_at BIGINT
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- The paths that each pin holds, with or without a narinfo.
CREATE TABLE pinned_paths (
    pin_id BIGINT NOT NULL,
    hash VARCHAR(32) NOT NULL,
    PRIMARY KEY (pin_id, hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX pinned_paths_hash ON pinned_paths (hash);

-- Blocked paths: this cache never fetches, accepts or serves them.
CREATE TABLE blocked_paths (
    hash VARCHAR(32) NOT NULL PRIMARY KEY,
    store_path_name VARCHAR(255) NOT NULL,
    blocked_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Hashes of the NARs of blocked paths and of the files of these, for any name.
CREATE TABLE blocked_files (
    file_hash VARCHAR(160) NOT NULL,
    hash VARCHAR(32) NOT NULL,
    blocked_at BIGINT NOT NULL,
    PRIMARY KEY (file_hash, hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE INDEX blocked_files_hash ON blocked_files (hash);

-- Pins: roots whose closures stay in the store. Ids are never given twice, so that rows of
-- `pinned_paths` that a removed pin has left never become those of a new one.
CREATE TABLE pins (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash VARCHAR(32) NOT NULL UNIQUE,
    label VARCHAR(255) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    is_fetching SMALLINT NOT NULL,
    -- What was seen of the closure when it was last looked at.
    paths BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    size BIGINT NOT NULL,
    looked_at BIGINT
);

-- The paths that each pin holds; a narinfo need not be there.
CREATE TABLE pinned_paths (
    pin_id BIGINT NOT NULL,
    hash VARCHAR(32) NOT NULL,
    PRIMARY KEY (pin_id, hash)
);

CREATE INDEX pinned_paths_hash ON pinned_paths (hash);

-- Paths that this cache never has.
CREATE TABLE blocked_paths (
    hash VARCHAR(32) NOT NULL PRIMARY KEY,
    store_path_name VARCHAR(255) NOT NULL,
    blocked_at BIGINT NOT NULL
);

-- Hashes of their NARs and of the files of these, under whatever name they come.
CREATE TABLE blocked_files (
    file_hash VARCHAR(160) NOT NULL,
    hash VARCHAR(32) NOT NULL,
    blocked_at BIGINT NOT NULL,
    PRIMARY KEY (file_hash, hash)
);

CREATE INDEX blocked_files_hash ON blocked_files (hash);

-- Identifies the stored object among all that had its key; empty or NULL: not known yet.
ALTER TABLE nar_files ADD COLUMN stored_tag VARCHAR(160);

-- For the search for a stored file by the hash of its bytes, under any name.
CREATE INDEX nar_files_file_hash ON nar_files (file_hash);

-- The voucher of a narinfo (a public key, or "ca"), and the public key of the signature of ncps.
ALTER TABLE narinfos ADD COLUMN verified_by TEXT;

ALTER TABLE narinfos ADD COLUMN signed_by TEXT;

-- Files that contain another NAR than their narinfo says.
CREATE TABLE wrong_files (
    nar_hash VARCHAR(160) NOT NULL,
    file_hash VARCHAR(160) NOT NULL,
    found_at BIGINT NOT NULL,
    PRIMARY KEY (nar_hash, file_hash)
);

CREATE INDEX wrong_files_found_at ON wrong_files (found_at);

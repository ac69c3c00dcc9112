-- Tells the stored object from every other one that has its key; empty or NULL: nobody has looked.
ALTER TABLE nar_files ADD COLUMN stored_tag VARCHAR(160);

-- By the hash of its bytes a stored file is found, whatever it is called.
CREATE INDEX nar_files_file_hash ON nar_files (file_hash);

-- Who vouched for a narinfo (a public key, or "ca"), and the public key that ours was signed with.
ALTER TABLE narinfos ADD COLUMN verified_by TEXT;

ALTER TABLE narinfos ADD COLUMN signed_by TEXT;

-- Files that were found to have another NAR inside than a narinfo said.
CREATE TABLE wrong_files (
    nar_hash VARCHAR(160) NOT NULL,
    file_hash VARCHAR(160) NOT NULL,
    found_at BIGINT NOT NULL,
    PRIMARY KEY (nar_hash, file_hash)
);

CREATE INDEX wrong_files_found_at ON wrong_files (found_at);

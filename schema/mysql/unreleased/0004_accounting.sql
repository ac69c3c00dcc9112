-- Counters that each transaction that stores or forgets a NAR updates; it locks them last.
CREATE TABLE accounts (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    nars BIGINT NOT NULL,
    bytes BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT INTO accounts (name, nars, bytes)
SELECT 'stored', COUNT(*), COALESCE(SUM(stored_size), 0) FROM nar_files WHERE stored_at IS NOT NULL;

-- The search for the oldest NARs reads the last use of their narinfos only from this index.
CREATE INDEX narinfos_nar_file_id_used ON narinfos (nar_file_id, last_used_at);

DROP INDEX narinfos_nar_file_id ON narinfos;

-- No statement searches for narinfos only by their age.
DROP INDEX narinfos_last_used_at ON narinfos;

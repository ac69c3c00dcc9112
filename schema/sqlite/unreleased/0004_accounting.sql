-- Running counts, kept by the transactions that store and forget; locked last in each of them.
CREATE TABLE accounts (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    nars BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);

INSERT INTO accounts (name, nars, bytes)
SELECT 'stored', COUNT(*), COALESCE(SUM(stored_size), 0) FROM nar_files WHERE stored_at IS NOT NULL;

-- The last use of a NAR's narinfos is read from here alone, when the oldest NARs are looked for.
CREATE INDEX narinfos_nar_file_id_used ON narinfos (nar_file_id, last_used_at);

DROP INDEX narinfos_nar_file_id;

-- Nothing asks for narinfos by age alone.
DROP INDEX narinfos_last_used_at;

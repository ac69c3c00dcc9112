-- The file name of the NAR from which ncps made this one, and the level of its compression;
-- NULL: ncps did not make it.
ALTER TABLE nar_files ADD COLUMN made_from VARCHAR(80);
ALTER TABLE nar_files ADD COLUMN made_level SMALLINT;

-- When ncps made another file from this NAR, or decided to make none; NULL: not yet.
ALTER TABLE nar_files ADD COLUMN recompressed_at BIGINT;

-- For the search for NARs to recompress, and for those that a twin has replaced.
CREATE INDEX nar_files_recompressed_at ON nar_files (recompressed_at, compression, stored_size);

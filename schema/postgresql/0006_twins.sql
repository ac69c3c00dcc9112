-- The file name of the NAR that ncps has made this one from, and the level of its compression;
-- NULL: it came as it is.
ALTER TABLE nar_files ADD COLUMN made_from VARCHAR(80);
ALTER TABLE nar_files ADD COLUMN made_level SMALLINT;

-- When ncps compressed this NAR anew, or found that it is not worth while; NULL: not yet.
ALTER TABLE nar_files ADD COLUMN recompressed_at BIGINT;

-- Finds NARs to compress, and those that another file has replaced.
CREATE INDEX nar_files_recompressed_at ON nar_files (recompressed_at, compression, stored_size);

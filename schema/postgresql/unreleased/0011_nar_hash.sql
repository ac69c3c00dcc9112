-- For the search for narinfos of the same NAR under other URLs.
CREATE INDEX nar_files_nar_hash ON nar_files (nar_hash);

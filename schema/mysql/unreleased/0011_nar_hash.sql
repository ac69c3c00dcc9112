-- By it other narinfos of the same NAR are found, where one names another URL by now.
CREATE INDEX nar_files_nar_hash ON nar_files (nar_hash);

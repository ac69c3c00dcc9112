-- When a client uploaded the bytes of a NAR; NULL: no client did.
ALTER TABLE nar_files ADD COLUMN uploaded_at BIGINT;

-- For the search for uploads without a narinfo, and the sum of uploads that no upstream has.
CREATE INDEX nar_files_uploaded_at ON nar_files (uploaded_at, stored_size);

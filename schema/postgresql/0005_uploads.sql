-- When a client uploaded the bytes of a NAR; NULL: they came from an upstream, or from elsewhere.
ALTER TABLE nar_files ADD COLUMN uploaded_at BIGINT;

-- Finds uploads that have no narinfo yet, and adds up those that no upstream has.
CREATE INDEX nar_files_uploaded_at ON nar_files (uploaded_at, stored_size);

-- The number of the lease under which the bytes were stored; 0 if there was none.
ALTER TABLE nar_files ADD COLUMN fence BIGINT NOT NULL DEFAULT 0;

-- Tokens of clients. A token itself is not stored: `digest` is its SHA-256, which is searched for.
-- The fact `tokens` is the number of the last change of this table.
CREATE TABLE tokens (
    id VARCHAR(16) COLLATE "C" NOT NULL PRIMARY KEY,
    name VARCHAR(64) COLLATE "C" NOT NULL,
    digest VARCHAR(64) COLLATE "C" NOT NULL UNIQUE,
    scopes VARCHAR(255) NOT NULL,
    path VARCHAR(512) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);

-- The tokens of an account. Both are encrypted with the key `key_id`. `expires_at` is the end of the access
-- token, by the clock of the server, and `lifetime` its whole time. `origins` has the SHA-256 of each
-- refresh token of a file that the stored one came from or replaced.
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    refresh_token BYTEA,
    access_token BYTEA,
    expires_at BIGINT NOT NULL,
    lifetime BIGINT NOT NULL,
    origins BYTEA NOT NULL
);

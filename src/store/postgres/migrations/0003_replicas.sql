-- The processes that use the store: when each was last seen, by the clock of the server, and the last
-- purge that it has applied.
CREATE TABLE replica (
    id BIGINT PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    generation BIGINT NOT NULL
);

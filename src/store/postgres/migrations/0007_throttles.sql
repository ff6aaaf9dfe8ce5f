-- The pauses that upstream asked for, by the clock of the server.
CREATE TABLE throttle (name TEXT PRIMARY KEY, until_at BIGINT NOT NULL);

-- Who asks upstream, by the clock of the server. `fence` grows with each holder of a name. Nobody holds
-- it after `expires_at`. `finished_at` is when a holder ended with a result that others may use, and
-- `failure` says how it failed, for others until `failed_until`.
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    owner BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    failed_until BIGINT NOT NULL,
    failure TEXT
) WITH (fillfactor = 70);

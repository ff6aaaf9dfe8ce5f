-- The last snapshots that were corrected, or made another date a customer's newest: other processes may have
-- cached what was before. Numbers have the order of commits, and are times where that is possible, so that one
-- has none that another had which a fail-over lost.
CREATE TABLE change (
    number BIGINT PRIMARY KEY,
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source SMALLINT NOT NULL,
    origin BIGINT NOT NULL
);
INSERT INTO change VALUES (0, 0, 0, 0, 0);

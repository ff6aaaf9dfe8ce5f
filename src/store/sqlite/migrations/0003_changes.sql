-- The last snapshots that were corrected, or made another date a customer's newest: other processes may have
-- cached what was before.
CREATE TABLE change (
    number INTEGER PRIMARY KEY,
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    origin INTEGER NOT NULL
) STRICT;
INSERT INTO change VALUES (0, 0, 0, 0, 0);

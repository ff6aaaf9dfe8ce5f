-- The last generations of purges. Whoever knows one that is missing here knows that the database went back in
-- time, and may have lost purges.
CREATE TABLE purge_generation (generation BIGINT PRIMARY KEY);
INSERT INTO purge_generation SELECT generation FROM store_state;

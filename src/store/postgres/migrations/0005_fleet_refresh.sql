-- The last refresh of all customers by one call of each source. `refreshed_at` and `confirmed_at` are as
-- in `newest`; `published_at` and `fresh_until` are by the clock of the server. `second_look` is when
-- suspect answers are asked for again.
CREATE TABLE fleet_refresh (
    source SMALLINT PRIMARY KEY,
    fence BIGINT NOT NULL,
    day INTEGER NOT NULL,
    refreshed_at BIGINT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    second_look BIGINT,
    published_at BIGINT NOT NULL,
    fresh_until BIGINT NOT NULL
);

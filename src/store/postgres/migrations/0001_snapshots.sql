-- Days are numbers since 1970-01-01, instants are milliseconds since then, `processed_offset` is
-- nanoseconds since the beginning of the snapshot's day. Day -2147483648 is that of an answer for the
-- newest date that had no rows. deploy/store/README.md describes the views; tables may change.

CREATE TABLE store_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    preferred_source INTEGER NOT NULL,
    -- One more with each purge: a snapshot of a smaller generation than a purge is older than it.
    generation BIGINT NOT NULL,
    customers_fetched_at BIGINT,
    -- The last row of texts_version.
    texts_version BIGINT NOT NULL
);
INSERT INTO store_state VALUES (1, 1, 0, NULL, 0);
-- A random number for each transaction that gave numbers to texts. After a fail-over that lost such a
-- transaction, its number is missing, and whoever knows it must read all texts again.
CREATE TABLE texts_version (version BIGINT PRIMARY KEY);
INSERT INTO texts_version VALUES (0);

CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO source VALUES (1, 'insights'), (2, 'commercial');

-- Texts have any length, so that no index has them. `name` is the last that any answer had.
CREATE TABLE customer (id INTEGER PRIMARY KEY, customer_id TEXT NOT NULL UNIQUE, name TEXT);
CREATE TABLE customer_name (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE listed_customer (
    customer INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    domain TEXT,
    raw TEXT NOT NULL
);
CREATE TABLE product (
    id INTEGER PRIMARY KEY,
    product_id TEXT,
    product_name TEXT NOT NULL,
    service_name TEXT NOT NULL,
    service_code TEXT,
    channel TEXT
);
CREATE TABLE workload (id INTEGER PRIMARY KEY, workload_name TEXT NOT NULL, workload_code TEXT);
CREATE TABLE processed_day (
    day INTEGER PRIMARY KEY,
    processed_date TEXT NOT NULL,
    as_date DATE NOT NULL UNIQUE GENERATED ALWAYS AS (DATE '1970-01-01' + day) STORED
);

-- The current content of each customer, day and source. `state` is 1 with rows and 2 without.
CREATE TABLE snapshot (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source SMALLINT NOT NULL,
    state SMALLINT NOT NULL,
    revision INTEGER NOT NULL,
    customer_name INTEGER,
    fetched_at BIGINT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (customer, day, source)
) WITH (fillfactor = 90);
CREATE TABLE fact (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    product INTEGER NOT NULL,
    workload INTEGER NOT NULL,
    licenses_active BIGINT NOT NULL,
    licenses_qualified BIGINT NOT NULL,
    processed_offset BIGINT NOT NULL,
    source SMALLINT NOT NULL,
    reported_usage_percent DOUBLE PRECISION,
    PRIMARY KEY (customer, day, source, product, workload)
);
CREATE TABLE native_body (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source SMALLINT NOT NULL,
    codec SMALLINT NOT NULL,
    revision INTEGER NOT NULL,
    length BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (customer, day, source, revision)
);
-- They are compressed.
ALTER TABLE native_body ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- What corrections replaced.
CREATE TABLE superseded_snapshot (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source SMALLINT NOT NULL,
    state SMALLINT NOT NULL,
    revision INTEGER NOT NULL,
    customer_name INTEGER,
    fetched_at BIGINT NOT NULL,
    confirmed_at BIGINT NOT NULL,
    PRIMARY KEY (customer, day, source, revision)
);
CREATE TABLE superseded_fact (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    product INTEGER NOT NULL,
    workload INTEGER NOT NULL,
    licenses_active BIGINT NOT NULL,
    licenses_qualified BIGINT NOT NULL,
    processed_offset BIGINT NOT NULL,
    revision INTEGER NOT NULL,
    source SMALLINT NOT NULL,
    reported_usage_percent DOUBLE PRECISION,
    PRIMARY KEY (customer, day, source, revision, product, workload)
);

-- The day of each customer's newest snapshot.
CREATE TABLE newest (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    confirmed_at BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    source SMALLINT NOT NULL,
    PRIMARY KEY (customer, source)
) WITH (fillfactor = 70);
-- Confirms each newest snapshot of the source that was confirmed since `refreshed_at`.
CREATE TABLE fleet_confirmed (
    source SMALLINT PRIMARY KEY,
    refreshed_at BIGINT NOT NULL,
    confirmed_at BIGINT NOT NULL
);
-- Days for which upstream was asked; customer 0 is all of them together.
CREATE TABLE asked_day (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    asked_at BIGINT NOT NULL,
    PRIMARY KEY (customer, day)
);
-- `mode` is 1 for soft and 2 for hard. Without a customer it is for all, without a day for all days.
CREATE TABLE purge (
    generation BIGINT PRIMARY KEY,
    customer INTEGER,
    day INTEGER,
    mode SMALLINT NOT NULL
);
CREATE INDEX purge_of_customer ON purge (customer, day);

-- Sums over all customers, for callers who may read all of them. `customers` has a bit for each.
CREATE TABLE product_total (
    day INTEGER NOT NULL,
    product INTEGER NOT NULL,
    licenses_qualified BIGINT NOT NULL,
    licenses_active BIGINT NOT NULL,
    licenses_unused BIGINT NOT NULL,
    customers BYTEA NOT NULL,
    PRIMARY KEY (day, product)
);
-- The days whose sums must be computed again.
CREATE TABLE outdated_total (day INTEGER PRIMARY KEY);

-- The rows of each customer and day, from the preferred source where both have some.
CREATE VIEW usage_rows AS
SELECT
    c.customer_id,
    c.name AS customer_name,
    d.as_date AS processed_date,
    p.product_name,
    w.workload_name,
    p.service_name,
    p.channel,
    f.licenses_active,
    f.licenses_qualified,
    f.reported_usage_percent,
    to_timestamp(s.fetched_at / 1000.0) AS fetched_at,
    s.revision,
    o.name AS source
FROM customer c
JOIN snapshot s ON s.customer = c.id AND s.state = 1
JOIN processed_day d ON d.day = s.day
JOIN fact f ON f.customer = s.customer AND f.day = s.day AND f.source = s.source
JOIN product p ON p.id = f.product
JOIN workload w ON w.id = f.workload
JOIN source o ON o.id = s.source
WHERE s.source = (SELECT preferred_source FROM store_state)
    OR NOT EXISTS (SELECT 1 FROM snapshot other
        WHERE other.customer = s.customer AND other.day = s.day AND other.state = 1
            AND other.source = (SELECT preferred_source FROM store_state));

CREATE VIEW newest_date AS
SELECT
    c.customer_id,
    (SELECT d.as_date
        FROM snapshot s
        JOIN processed_day d ON d.day = s.day
        WHERE s.customer = c.id AND s.state = 1
        ORDER BY s.day DESC
        LIMIT 1) AS processed_date
FROM customer c;

-- The rows of each customer's newest date.
CREATE VIEW newest_usage AS
SELECT u.*
FROM newest_date n
JOIN usage_rows u ON u.customer_id = n.customer_id AND u.processed_date = n.processed_date;

-- One row for each customer, day, source and revision. An answer for the newest date that had no rows has
-- no processed date.
CREATE VIEW snapshots AS
SELECT
    c.customer_id,
    c.name AS customer_name,
    d.as_date AS processed_date,
    s.revision,
    CASE s.state WHEN 1 THEN 'rows' ELSE 'empty' END AS state,
    to_timestamp(s.fetched_at / 1000.0) AS fetched_at,
    to_timestamp(greatest(s.confirmed_at, f.confirmed_at) / 1000.0) AS confirmed_at,
    o.name AS source
FROM customer c
JOIN snapshot s ON s.customer = c.id
JOIN source o ON o.id = s.source
LEFT JOIN processed_day d ON d.day = s.day
LEFT JOIN newest n ON n.customer = s.customer AND n.source = s.source AND n.day = s.day
LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at
UNION ALL
SELECT
    c.customer_id,
    c.name,
    d.as_date,
    s.revision,
    CASE s.state WHEN 1 THEN 'rows' ELSE 'empty' END,
    to_timestamp(s.fetched_at / 1000.0),
    to_timestamp(s.confirmed_at / 1000.0),
    o.name
FROM customer c
JOIN superseded_snapshot s ON s.customer = c.id
JOIN source o ON o.id = s.source
LEFT JOIN processed_day d ON d.day = s.day;

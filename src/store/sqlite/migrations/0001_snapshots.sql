-- Days are numbers since 1970-01-01, instants are milliseconds since then, `processed_offset` is
-- nanoseconds since the beginning of the snapshot's day. Day -2147483648 is that of an answer for the
-- newest date that had no rows. deploy/store/README.md describes the views; tables may change.

CREATE TABLE store_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    preferred_source INTEGER NOT NULL,
    -- One more with each purge: a snapshot of a smaller generation than a purge is older than it.
    generation INTEGER NOT NULL,
    customers_fetched_at INTEGER
) STRICT;
INSERT INTO store_state VALUES (1, 1, 0, NULL);

CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO source VALUES (1, 'insights'), (2, 'commercial');

-- `name` is the last that any answer had.
CREATE TABLE customer (id INTEGER PRIMARY KEY, customer_id TEXT NOT NULL UNIQUE, name TEXT) STRICT;
CREATE TABLE customer_name (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE listed_customer (
    customer INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    domain TEXT,
    raw TEXT NOT NULL
) STRICT;
CREATE TABLE product (
    id INTEGER PRIMARY KEY,
    product_id TEXT,
    product_name TEXT NOT NULL,
    service_name TEXT NOT NULL,
    service_code TEXT,
    channel TEXT
) STRICT;
CREATE TABLE workload (id INTEGER PRIMARY KEY, workload_name TEXT NOT NULL, workload_code TEXT) STRICT;
CREATE TABLE processed_day (day INTEGER PRIMARY KEY, processed_date TEXT NOT NULL UNIQUE) STRICT;

-- The current content of each customer, day and source. `state` is 1 with rows and 2 without.
CREATE TABLE snapshot (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    state INTEGER NOT NULL,
    customer_name INTEGER,
    fetched_at INTEGER NOT NULL,
    confirmed_at INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (customer, day, source)
) STRICT, WITHOUT ROWID;
CREATE TABLE fact (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    product INTEGER NOT NULL,
    workload INTEGER NOT NULL,
    licenses_active INTEGER NOT NULL,
    licenses_qualified INTEGER NOT NULL,
    reported_usage_percent REAL,
    processed_offset INTEGER NOT NULL,
    PRIMARY KEY (customer, day, source, product, workload)
) STRICT, WITHOUT ROWID;
CREATE TABLE native_body (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    length INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (customer, day, source, revision)
) STRICT, WITHOUT ROWID;

-- What corrections replaced.
CREATE TABLE superseded_snapshot (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    state INTEGER NOT NULL,
    customer_name INTEGER,
    fetched_at INTEGER NOT NULL,
    confirmed_at INTEGER NOT NULL,
    PRIMARY KEY (customer, day, source, revision)
) STRICT, WITHOUT ROWID;
CREATE TABLE superseded_fact (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    source INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    product INTEGER NOT NULL,
    workload INTEGER NOT NULL,
    licenses_active INTEGER NOT NULL,
    licenses_qualified INTEGER NOT NULL,
    reported_usage_percent REAL,
    processed_offset INTEGER NOT NULL,
    PRIMARY KEY (customer, day, source, revision, product, workload)
) STRICT, WITHOUT ROWID;

-- The day of each customer's newest snapshot.
CREATE TABLE newest (
    customer INTEGER NOT NULL,
    source INTEGER NOT NULL,
    day INTEGER NOT NULL,
    confirmed_at INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (customer, source)
) STRICT, WITHOUT ROWID;
-- Confirms each newest snapshot of the source that was confirmed since `refreshed_at`.
CREATE TABLE fleet_confirmed (
    source INTEGER PRIMARY KEY,
    refreshed_at INTEGER NOT NULL,
    confirmed_at INTEGER NOT NULL
) STRICT;
-- Days for which upstream was asked; customer 0 is all of them together.
CREATE TABLE asked_day (
    customer INTEGER NOT NULL,
    day INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    PRIMARY KEY (customer, day)
) STRICT, WITHOUT ROWID;
-- `mode` is 1 for soft and 2 for hard. Without a customer it is for all, without a day for all days.
CREATE TABLE purge (
    generation INTEGER PRIMARY KEY,
    customer INTEGER,
    day INTEGER,
    mode INTEGER NOT NULL
) STRICT;
CREATE INDEX purge_of_customer ON purge (customer, day);

-- Sums over all customers, for callers who may read all of them. `customers` has a bit for each.
CREATE TABLE product_total (
    day INTEGER NOT NULL,
    product INTEGER NOT NULL,
    licenses_qualified INTEGER NOT NULL,
    licenses_active INTEGER NOT NULL,
    licenses_unused INTEGER NOT NULL,
    customers BLOB NOT NULL,
    PRIMARY KEY (day, product)
) STRICT;
-- The days whose sums must be computed again.
CREATE TABLE outdated_total (day INTEGER PRIMARY KEY) STRICT;

-- The rows of each customer and day, from the preferred source where both have some.
CREATE VIEW usage_rows AS
SELECT
    c.customer_id,
    c.name AS customer_name,
    d.processed_date,
    p.product_name,
    w.workload_name,
    p.service_name,
    p.channel,
    f.licenses_active,
    f.licenses_qualified,
    f.reported_usage_percent,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.fetched_at / 1000.0, 'unixepoch') AS fetched_at,
    s.revision,
    o.name AS source
FROM customer c
CROSS JOIN processed_day d
CROSS JOIN snapshot s
CROSS JOIN fact f
CROSS JOIN product p
CROSS JOIN workload w
CROSS JOIN source o
WHERE s.customer = c.id AND s.day = d.day AND s.state = 1
    AND (s.source = (SELECT preferred_source FROM store_state)
        OR NOT EXISTS (SELECT 1 FROM snapshot other
            WHERE other.customer = s.customer AND other.day = s.day AND other.state = 1
                AND other.source = (SELECT preferred_source FROM store_state)))
    AND f.customer = s.customer AND f.day = s.day AND f.source = s.source
    AND p.id = f.product AND w.id = f.workload AND o.id = s.source;

CREATE VIEW newest_date AS
SELECT
    c.customer_id,
    (SELECT d.processed_date
        FROM snapshot s
        CROSS JOIN processed_day d
        WHERE s.customer = c.id AND s.state = 1 AND d.day = s.day
        ORDER BY s.day DESC
        LIMIT 1) AS processed_date
FROM customer c;

-- The rows of each customer's newest date.
CREATE VIEW newest_usage AS
SELECT u.*
FROM newest_date n
CROSS JOIN usage_rows u
WHERE u.customer_id = n.customer_id AND u.processed_date = n.processed_date;

-- One row for each customer, day, source and revision. An answer for the newest date that had no rows has
-- no processed date.
CREATE VIEW snapshots AS
SELECT
    c.customer_id,
    c.name AS customer_name,
    d.processed_date,
    s.revision,
    CASE s.state WHEN 1 THEN 'rows' ELSE 'empty' END AS state,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.fetched_at / 1000.0, 'unixepoch') AS fetched_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', max(s.confirmed_at, coalesce(f.confirmed_at, 0)) / 1000.0,
        'unixepoch') AS confirmed_at,
    o.name AS source
FROM customer c
CROSS JOIN snapshot s ON s.customer = c.id
JOIN source o ON o.id = s.source
LEFT JOIN processed_day d ON d.day = s.day
LEFT JOIN newest n ON n.customer = s.customer AND n.source = s.source AND n.day = s.day
LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at
UNION ALL
SELECT
    c.customer_id,
    c.name,
    d.processed_date,
    s.revision,
    CASE s.state WHEN 1 THEN 'rows' ELSE 'empty' END,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.fetched_at / 1000.0, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%fZ', s.confirmed_at / 1000.0, 'unixepoch'),
    o.name
FROM customer c
CROSS JOIN superseded_snapshot s ON s.customer = c.id
JOIN source o ON o.id = s.source
LEFT JOIN processed_day d ON d.day = s.day;

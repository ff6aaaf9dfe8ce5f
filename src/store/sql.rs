//! The shared part of all engines: the statements, and the code that runs them on a [`SqlConnection`](connection::SqlConnection).
//!
//! Days are numbers since 1970-01-01 and instants are milliseconds, so that no statement needs an engine's
//! own functions. Parameters are numbered: `$1`, `$2`.

pub(super) mod apply;
pub(super) mod connection;
pub(super) mod copy;
pub(super) mod dictionary;
pub(super) mod error;
pub(super) mod history;
pub(super) mod lane;
pub(super) mod merge;
pub(super) mod read;
pub(super) mod store;
pub(super) mod totals;

/// A statement in the spelling of each engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    /// With `$1`, as PostgreSQL numbers parameters.
    pub(super) dollars: &'static str,
    /// With `?1`: to SQLite, `$1` is a name, and it numbers names in the order in which they appear.
    pub(super) question_marks: &'static str,
}

/// Defines statements, and a list of all of them for tests.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)+) => {
        $($(#[$meta])* pub(super) const $name: Statement = {
            const TEXT: &str = $text;
            const BYTES: [u8; TEXT.len()] = question_marks(TEXT);
            Statement {
                dollars: TEXT,
                question_marks: match str::from_utf8(&BYTES) {
                    Ok(text) => text,
                    Err(_) => TEXT,
                },
            }
        };)+

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $text),)+];
    };
}

statements! {
    // === Parts of a transaction ===
    BEGIN_GROUP = "SAVEPOINT of_group";
    END_GROUP = "RELEASE SAVEPOINT of_group";
    UNDO_GROUP = "ROLLBACK TO SAVEPOINT of_group";

    // === The state of the store ===
    PREFERRED_SOURCE = "SELECT preferred_source FROM store_state";
    SET_PREFERRED_SOURCE = "UPDATE store_state SET preferred_source = $1";
    GENERATION = "SELECT generation FROM store_state";
    NEXT_GENERATION = "UPDATE store_state SET generation = generation + 1 RETURNING generation";
    // A purge of everything after a generation.
    PURGES_OF_ALL_AFTER = "SELECT count(*) FROM purge WHERE generation > $1 \
        AND generation <= (SELECT generation FROM store_state) \
        AND customer IS NULL AND day IS NULL";

    // === The state of a store on PostgreSQL ===
    // Changes are made by one process at a time, as in SQLite.
    LOCK_STORE = "SELECT texts_version FROM store_state FOR UPDATE";
    TEXTS_VERSION = "SELECT texts_version FROM store_state";
    KNOWN_TEXTS_VERSION = "SELECT version FROM texts_version WHERE version = $1";
    ADD_TEXTS_VERSION = "INSERT INTO texts_version (version) VALUES ($1)";
    SET_TEXTS_VERSION = "UPDATE store_state SET texts_version = $1";
    // A time, so that a purge has none that a purge had which a fail-over lost.
    NEXT_GENERATION_BY_CLOCK = "UPDATE store_state SET generation = greatest(generation + 1, \
        CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)) RETURNING generation";
    ADD_GENERATION = "INSERT INTO purge_generation (generation) VALUES ($1)";
    DELETE_OLD_GENERATIONS = "DELETE FROM purge_generation WHERE generation < \
        (SELECT generation FROM purge_generation ORDER BY generation DESC OFFSET 1000 LIMIT 1)";
    KNOWN_GENERATION = "SELECT generation FROM purge_generation WHERE generation = $1";
    STORED_BYTES = "SELECT CAST(coalesce(sum(pg_total_relation_size(c.oid)), 0) AS BIGINT) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = 'usage_proxy' AND c.relkind = 'r'";
    REPORT_REPLICA = "INSERT INTO replica (id, seen_at, generation) \
        VALUES ($1, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT), $2) \
        ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, generation = excluded.generation";
    // A time in the future comes from a server whose clock was ahead, before a fail-over.
    DELETE_OLD_REPLICAS = "DELETE FROM replica WHERE seen_at NOT BETWEEN \
        CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) - 86400000 \
        AND CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + 10000";
    OTHER_REPLICAS = "SELECT generation FROM replica WHERE id <> $1 \
        AND seen_at > CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) - 10000";
    LEASE = "SELECT count(*) FROM lease WHERE name = $1 AND fence = $2";
    // Another holder may have fetched before the purge. This process throws such an answer away by itself.
    END_PURGED_LEASES = "UPDATE lease SET expires_at = 0, finished_at = 0, failed_until = 0, \
        fence = mod(fence, 9000000000000000000) + 1 WHERE name LIKE $1 AND owner <> $2";
    DELETE_OLD_LEASES = "DELETE FROM lease \
        WHERE greatest(expires_at, finished_at, failed_until) \
        < CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) - 86400000";
    // Upstream's pauses last a quarter of an hour at most.
    DELETE_OLD_THROTTLES = "DELETE FROM throttle WHERE until_at NOT BETWEEN \
        CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) \
        AND CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + 900000";
    SCHEMA_TABLES = "SELECT count(*) FROM pg_tables \
        WHERE schemaname = 'usage_proxy' AND tablename = 'schema_version'";
    SCHEMA_VERSION = "SELECT coalesce(max(version), 0) FROM schema_version";
    ADD_SCHEMA_VERSION = "INSERT INTO schema_version (version, applied_at) VALUES ($1, $2)";

    // === Names and their numbers ===
    CUSTOMERS_AFTER = "SELECT id, customer_id FROM customer WHERE id > $1 ORDER BY id";
    ADD_CUSTOMER = "INSERT INTO customer (id, customer_id) VALUES ($1, $2)";
    NAME_CUSTOMER = "UPDATE customer SET name = $2 WHERE id = $1 AND (name IS NULL OR name <> $2)";
    NAMES_AFTER = "SELECT id, name FROM customer_name WHERE id > $1 ORDER BY id";
    ADD_NAME = "INSERT INTO customer_name (id, name) VALUES ($1, $2)";
    PRODUCTS_AFTER = "SELECT id, product_id, product_name, service_name, service_code, channel \
        FROM product WHERE id > $1 ORDER BY id";
    ADD_PRODUCT = "INSERT INTO product \
        (id, product_id, product_name, service_name, service_code, channel) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    WORKLOADS_AFTER = "SELECT id, workload_name, workload_code FROM workload WHERE id > $1 ORDER BY id";
    ADD_WORKLOAD = "INSERT INTO workload (id, workload_name, workload_code) VALUES ($1, $2, $3)";
    ADD_DAY = "INSERT INTO processed_day (day, processed_date) VALUES ($1, $2) ON CONFLICT DO NOTHING";

    // === Snapshots, written ===
    CURRENT_REVISION = "SELECT revision, confirmed_at FROM snapshot WHERE customer = $1 AND day = $2 AND source = $3";
    FACTS = "SELECT product, workload, licenses_active, licenses_qualified, reported_usage_percent, \
        processed_offset FROM fact WHERE customer = $1 AND day = $2 AND source = $3 \
        ORDER BY product, workload";
    ADD_FACT = "INSERT INTO fact (customer, day, source, product, workload, licenses_active, \
        licenses_qualified, reported_usage_percent, processed_offset) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    ADD_SNAPSHOT = "INSERT INTO snapshot (customer, day, source, revision, state, customer_name, \
        fetched_at, confirmed_at, generation) VALUES ($1, $2, $3, 1, $4, $5, $6, $6, \
        (SELECT generation FROM store_state))";
    // Content is no newer than its confirmation, whatever clock was wrong.
    CONFIRM_SNAPSHOT = "UPDATE snapshot SET customer_name = $4, confirmed_at = $5, \
        fetched_at = CASE WHEN fetched_at > $5 THEN $5 ELSE fetched_at END, \
        generation = (SELECT generation FROM store_state) \
        WHERE customer = $1 AND day = $2 AND source = $3";
    CORRECT_SNAPSHOT = "UPDATE snapshot SET revision = revision + 1, state = $4, customer_name = $5, \
        fetched_at = $6, confirmed_at = $6, generation = (SELECT generation FROM store_state) \
        WHERE customer = $1 AND day = $2 AND source = $3";
    SUPERSEDE_SNAPSHOT = "INSERT INTO superseded_snapshot (customer, day, source, revision, state, \
        customer_name, fetched_at, confirmed_at) \
        SELECT customer, day, source, revision, state, customer_name, fetched_at, confirmed_at \
        FROM snapshot WHERE customer = $1 AND day = $2 AND source = $3";
    SUPERSEDE_FACTS = "INSERT INTO superseded_fact (customer, day, source, revision, product, workload, \
        licenses_active, licenses_qualified, reported_usage_percent, processed_offset) \
        SELECT customer, day, source, $4, product, workload, licenses_active, licenses_qualified, \
        reported_usage_percent, processed_offset \
        FROM fact WHERE customer = $1 AND day = $2 AND source = $3";
    DELETE_FACTS = "DELETE FROM fact WHERE customer = $1 AND day = $2 AND source = $3";
    SET_BODY = "INSERT INTO native_body (customer, day, source, revision, codec, length, bytes) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (customer, day, source, revision) DO UPDATE \
        SET codec = excluded.codec, length = excluded.length, bytes = excluded.bytes \
        WHERE native_body.bytes <> excluded.bytes OR native_body.codec <> excluded.codec \
        OR native_body.length <> excluded.length";
    DELETE_NEWEST = "DELETE FROM newest WHERE customer = $1 AND day = $2 AND source = $3";
    NEWEST_DAY = "SELECT day, generation, confirmed_at FROM newest WHERE customer = $1 AND source = $2";
    SET_NEWEST = "INSERT INTO newest (customer, source, day, confirmed_at, generation) \
        VALUES ($1, $2, $3, $4, (SELECT generation FROM store_state)) \
        ON CONFLICT (customer, source) DO UPDATE \
        SET day = excluded.day, confirmed_at = excluded.confirmed_at, generation = excluded.generation";
    OUTDATE_TOTAL = "INSERT INTO outdated_total (day) VALUES ($1) ON CONFLICT DO NOTHING";

    // === Other changes ===
    ADD_ASKED_DAY = "INSERT INTO asked_day (customer, day, asked_at) VALUES ($1, $2, $3) \
        ON CONFLICT (customer, day) DO UPDATE SET asked_at = excluded.asked_at";
    // After a hard purge, no date counts as fetched whole any more. 0 is all customers, and
    // -2147483648 all days.
    FORGET_ASKED_DAYS = "DELETE FROM asked_day WHERE (customer = 0 OR $1 = 0 OR customer = $1) \
        AND ($2 = -2147483648 OR day = $2)";
    // After a soft purge, an answer without data is too old to be given again.
    OUTDATE_ASKED_DAYS = "UPDATE asked_day SET asked_at = 0 \
        WHERE (customer = 0 OR $1 = 0 OR customer = $1) AND ($2 = -2147483648 OR day = $2)";
    // The confirmations of the refresh before stay with the customers that only it confirmed.
    KEEP_FLEET_CONFIRMATION = "UPDATE newest SET confirmed_at = f.confirmed_at FROM fleet_confirmed f \
        WHERE f.source = $1 AND f.refreshed_at <> $2 AND newest.source = $1 \
        AND newest.confirmed_at >= f.refreshed_at AND newest.confirmed_at < f.confirmed_at";
    SET_FLEET_CONFIRMED = "INSERT INTO fleet_confirmed (source, refreshed_at, confirmed_at) \
        VALUES ($1, $2, $3) ON CONFLICT (source) DO UPDATE \
        SET refreshed_at = excluded.refreshed_at, confirmed_at = excluded.confirmed_at";
    SET_LISTED_CUSTOMER = "INSERT INTO listed_customer (customer, name, domain, raw) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (customer) DO UPDATE \
        SET name = excluded.name, domain = excluded.domain, raw = excluded.raw \
        WHERE listed_customer.name <> excluded.name OR listed_customer.raw <> excluded.raw \
        OR listed_customer.domain IS DISTINCT FROM excluded.domain";
    LISTED_CUSTOMER_IDS = "SELECT customer FROM listed_customer";
    DELETE_LISTED_CUSTOMER = "DELETE FROM listed_customer WHERE customer = $1";
    SET_CUSTOMERS_FETCHED_AT = "UPDATE store_state SET customers_fetched_at = $1";
    // A purge includes those before it that are no wider and no stronger. Those of another process stay
    // until all have long applied them: that one skips its own, which may be the one that includes them.
    DELETE_INCLUDED_PURGES = "DELETE FROM purge WHERE mode <= $3 \
        AND ($1 = 0 OR customer = $1) AND ($2 = -2147483648 OR day = $2) \
        AND (origin = $4 OR generation <= (SELECT generation - $5 FROM store_state))";
    ADD_PURGE = "INSERT INTO purge (generation, customer, day, mode, origin) \
        VALUES ($1, NULLIF($2, 0), NULLIF($3, -2147483648), $4, $5)";
    OTHER_PURGES_AFTER = "SELECT generation, customer, day FROM purge WHERE generation > $1 \
        AND (origin IS NULL OR origin <> $2) ORDER BY generation";
    LOWER_SNAPSHOT = "UPDATE snapshot SET generation = $4 \
        WHERE customer = $1 AND day = $2 AND source = $3 AND generation > $4";
    LOWER_NEWEST = "UPDATE newest SET generation = $4 \
        WHERE customer = $1 AND day = $2 AND source = $3 AND generation > $4";
    ADD_CHANGE = "INSERT INTO change (number, customer, day, source, origin) \
        VALUES ((SELECT max(number) + 1 FROM change), $1, $2, $3, $4)";
    ADD_CHANGE_BY_CLOCK = "INSERT INTO change (number, customer, day, source, origin) \
        VALUES ((SELECT greatest(max(number) + 1, \
        CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)) FROM change), $1, $2, $3, $4)";
    DELETE_OLD_CHANGES = "DELETE FROM change \
        WHERE number < (SELECT number FROM change ORDER BY number DESC LIMIT 1 OFFSET 10000)";

    // === Snapshots, read ===
    CHANGE_NUMBERS = "SELECT min(number), max(number) FROM change";
    CHANGES_AFTER = "SELECT number, customer, day, source, origin FROM change WHERE number > $1 \
        ORDER BY number LIMIT $2";
    NEWEST_SNAPSHOT = "SELECT n.day, s.revision, s.customer_name, s.fetched_at, n.confirmed_at, \
        f.confirmed_at, n.generation FROM newest n \
        JOIN snapshot s ON s.customer = n.customer AND s.day = n.day AND s.source = n.source \
        LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at \
        WHERE n.customer = $1 AND n.source = $2";
    DATED_SNAPSHOT = "SELECT day, revision, customer_name, fetched_at, confirmed_at, NULL, generation \
        FROM snapshot WHERE customer = $1 AND source = $2 AND day = $3 AND state = 1";
    BODY = "SELECT codec, length, bytes FROM native_body \
        WHERE customer = $1 AND day = $2 AND source = $3 AND revision = $4";
    PURGES_OF_DAY = "SELECT mode, max(generation) FROM purge WHERE customer = $1 AND day = $2 \
        GROUP BY mode UNION ALL SELECT mode, max(generation) FROM purge \
        WHERE customer = $1 AND day IS NULL GROUP BY mode UNION ALL \
        SELECT mode, max(generation) FROM purge WHERE customer IS NULL AND day = $2 \
        GROUP BY mode UNION ALL SELECT mode, max(generation) FROM purge \
        WHERE customer IS NULL AND day IS NULL GROUP BY mode";
    PURGES = "SELECT mode, generation, customer, day FROM purge";
    PURGES_AFTER = "SELECT mode, customer, day, origin FROM purge \
        WHERE generation > $1 AND generation <= $2 ORDER BY generation";
    ALL_NEWEST_SNAPSHOTS = "SELECT n.customer, n.source, n.day, s.revision, s.customer_name, \
        s.fetched_at, n.confirmed_at, f.confirmed_at, n.generation FROM newest n \
        JOIN snapshot s ON s.customer = n.customer AND s.day = n.day AND s.source = n.source \
        LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at \
        ORDER BY n.customer, n.source";
    ALL_SNAPSHOTS_OF_DAY = "SELECT s.customer, s.source, s.day, s.revision, s.customer_name, \
        s.fetched_at, s.confirmed_at, NULL, s.generation FROM customer c CROSS JOIN snapshot s \
        WHERE s.customer = c.id AND s.day = $1 AND s.state = 1 ORDER BY c.id, s.source";
    FLEET_ASKED_AT = "SELECT asked_at FROM asked_day WHERE customer = $1 AND day = $2";
    CUSTOMERS_FETCHED_AT = "SELECT customers_fetched_at FROM store_state";
    // === History ===
    // Of two sources, the preferred one counts where it has rows.
    DATES = "SELECT s.day, s.fetched_at, s.confirmed_at, f.confirmed_at, s.revision FROM snapshot s \
        LEFT JOIN newest n ON n.customer = s.customer AND n.source = s.source AND n.day = s.day \
        LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at \
        WHERE s.customer = $1 AND s.day BETWEEN $2 AND $3 AND s.state = 1 \
        AND (s.source = $4 OR NOT EXISTS (SELECT 1 FROM snapshot o WHERE o.customer = s.customer \
        AND o.day = s.day AND o.source = $4 AND o.state = 1)) ORDER BY s.day";
    HISTORY = "SELECT f.day, f.product, f.workload, f.licenses_active, f.licenses_qualified \
        FROM fact f WHERE f.customer = $1 AND f.day BETWEEN $2 AND $3 \
        AND (f.source = $4 OR NOT EXISTS (SELECT 1 FROM snapshot o WHERE o.customer = f.customer \
        AND o.day = f.day AND o.source = $4 AND o.state = 1)) \
        ORDER BY f.day, f.source, f.product, f.workload";
    // Of the first day, the rows after a product and a workload.
    HISTORY_PAGE = "SELECT f.day, f.product, f.workload, f.licenses_active, f.licenses_qualified \
        FROM fact f WHERE f.customer = $1 AND f.day BETWEEN $2 AND $3 \
        AND (f.source = $4 OR NOT EXISTS (SELECT 1 FROM snapshot o WHERE o.customer = f.customer \
        AND o.day = f.day AND o.source = $4 AND o.state = 1)) \
        AND (f.day > $2 OR f.product > $5 OR (f.product = $5 AND f.workload > $6)) \
        ORDER BY f.day, f.source, f.product, f.workload LIMIT $7";
    DAYS_OF_CUSTOMER = "SELECT DISTINCT day FROM snapshot \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND state = 1 ORDER BY day";
    FIRST_RECENT_DAY = "SELECT min(day) FROM (SELECT DISTINCT day FROM snapshot \
        WHERE customer = $1 AND day <= $2 AND state = 1 ORDER BY day DESC LIMIT $3) AS recent";
    OUTDATED_TOTALS = "SELECT day FROM outdated_total WHERE day BETWEEN $1 AND $2";
    PRODUCT_TOTALS = "SELECT day, product, licenses_qualified, licenses_active, licenses_unused, \
        customers FROM product_total WHERE day BETWEEN $1 AND $2";
    FACTS_OF_DAY = "SELECT f.customer, f.product, f.licenses_active, f.licenses_qualified \
        FROM customer c CROSS JOIN fact f WHERE f.customer = c.id AND f.day = $1 \
        AND (f.source = $2 OR NOT EXISTS (SELECT 1 FROM snapshot o WHERE o.customer = f.customer \
        AND o.day = f.day AND o.source = $2 AND o.state = 1)) ORDER BY c.id";
    LAST_OUTDATED_TOTAL = "SELECT day FROM outdated_total ORDER BY day DESC LIMIT 1";
    DELETE_TOTALS = "DELETE FROM product_total WHERE day = $1";
    ADD_TOTAL = "INSERT INTO product_total (day, product, licenses_qualified, licenses_active, \
        licenses_unused, customers) VALUES ($1, $2, $3, $4, $5, $6)";
    TOTAL_IS_CURRENT = "DELETE FROM outdated_total WHERE day = $1";
    OUTDATE_ALL_TOTALS = "INSERT INTO outdated_total (day) SELECT DISTINCT day FROM product_total \
        WHERE true ON CONFLICT DO NOTHING";
    ASKED_DAYS = "SELECT day FROM asked_day WHERE customer = $1 AND day BETWEEN $2 AND $3 \
        UNION SELECT day FROM asked_day WHERE customer = 0 AND day BETWEEN $2 AND $3 \
        UNION SELECT day FROM snapshot WHERE customer = $1 AND day BETWEEN $2 AND $3 ORDER BY day";

    // === Deletion of old dates ===
    LAST_DAY = "SELECT max(day) FROM processed_day";
    DELETE_SNAPSHOT = "DELETE FROM snapshot WHERE customer = $1 AND day = $2 AND source = $3";
    DELETE_BODIES = "DELETE FROM native_body WHERE customer = $1 AND day = $2 AND source = $3";
    DELETE_SUPERSEDED_SNAPSHOTS = "DELETE FROM superseded_snapshot \
        WHERE customer = $1 AND day = $2 AND source = $3";
    DELETE_SUPERSEDED_FACTS = "DELETE FROM superseded_fact \
        WHERE customer = $1 AND day = $2 AND source = $3";
    // Each customer by itself, so that no plan reads all snapshots to find out that none is old.
    CUSTOMERS_BEFORE = "SELECT c.id FROM customer c WHERE (SELECT min(s.day) FROM snapshot s \
        WHERE s.customer = c.id AND s.day > -2147483648) < $1 LIMIT $2";
    SNAPSHOTS_BEFORE = "SELECT day, source, revision FROM snapshot \
        WHERE customer = $1 AND day < $2 AND day > -2147483648 ORDER BY day, source LIMIT $3";
    DELETE_OLD_SNAPSHOTS = "DELETE FROM snapshot \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_OLD_FACTS = "DELETE FROM fact \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_OLD_BODIES = "DELETE FROM native_body \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_OLD_SUPERSEDED_SNAPSHOTS = "DELETE FROM superseded_snapshot \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_OLD_SUPERSEDED_FACTS = "DELETE FROM superseded_fact \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_OLD_NEWEST = "DELETE FROM newest \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 AND source = $4";
    DELETE_ASKED_DAYS = "DELETE FROM asked_day WHERE day < $1";

    // === Copies of a store, read ===
    SERVER_IDENTITY = "SELECT CAST(pg_postmaster_start_time() AS TEXT) || ' ' || current_database()";
    SNAPSHOT_COUNT = "SELECT count(*) FROM snapshot";
    FLEET_CONFIRMATIONS = "SELECT source, refreshed_at, confirmed_at FROM fleet_confirmed ORDER BY source";
    CUSTOMER_NAME = "SELECT name FROM customer WHERE id = $1";
    NEWEST_OF_CUSTOMER = "SELECT n.source, n.day, n.confirmed_at, f.confirmed_at, n.generation FROM newest n \
        LEFT JOIN fleet_confirmed f ON f.source = n.source AND n.confirmed_at >= f.refreshed_at \
        WHERE n.customer = $1 ORDER BY n.source";
    ASKED_DAYS_OF_CUSTOMER = "SELECT day, asked_at FROM asked_day WHERE customer = $1 ORDER BY day";
    SNAPSHOT_TIMES = "SELECT day, source, fetched_at, confirmed_at, generation FROM snapshot \
        WHERE customer = $1 ORDER BY day, source";
    SUPERSEDED_TIMES = "SELECT day, source, fetched_at FROM superseded_snapshot WHERE customer = $1";
    SNAPSHOTS_OF_DAYS = "SELECT day, source, revision, state, customer_name, fetched_at, confirmed_at, \
        generation FROM snapshot WHERE customer = $1 AND day BETWEEN $2 AND $3 ORDER BY day, source";
    FACTS_OF_DAYS = "SELECT day, source, product, workload, licenses_active, licenses_qualified, \
        reported_usage_percent, processed_offset FROM fact \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 ORDER BY day, source, product, workload";
    BODIES_OF_DAYS = "SELECT day, source, revision, codec, length, bytes FROM native_body \
        WHERE customer = $1 AND day BETWEEN $2 AND $3";
    SUPERSEDED_SNAPSHOTS_OF_DAYS = "SELECT day, source, revision, state, customer_name, fetched_at, \
        confirmed_at FROM superseded_snapshot WHERE customer = $1 AND day BETWEEN $2 AND $3 \
        ORDER BY day, source, revision";
    SUPERSEDED_FACTS_OF_DAYS = "SELECT day, source, product, workload, licenses_active, licenses_qualified, \
        reported_usage_percent, processed_offset, revision FROM superseded_fact \
        WHERE customer = $1 AND day BETWEEN $2 AND $3 \
        ORDER BY day, source, revision, product, workload";

    // === Copies of a store, written ===
    NAME_UNNAMED_CUSTOMER = "UPDATE customer SET name = $2 WHERE id = $1 AND name IS NULL";
    COPY_SNAPSHOT = "INSERT INTO snapshot (customer, day, source, revision, state, customer_name, \
        fetched_at, confirmed_at, generation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    COPY_SUPERSEDED_SNAPSHOT = "INSERT INTO superseded_snapshot (customer, day, source, revision, state, \
        customer_name, fetched_at, confirmed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    COPY_SUPERSEDED_FACT = "INSERT INTO superseded_fact (customer, day, source, product, workload, \
        licenses_active, licenses_qualified, reported_usage_percent, processed_offset, revision) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    COPY_NEWEST = "INSERT INTO newest (customer, source, day, confirmed_at, generation) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (customer, source) DO UPDATE \
        SET day = excluded.day, confirmed_at = excluded.confirmed_at, generation = excluded.generation";
    // 0 is what a soft purge left.
    COPY_ASKED_DAY = "INSERT INTO asked_day (customer, day, asked_at) VALUES ($1, $2, $3) \
        ON CONFLICT (customer, day) DO UPDATE SET asked_at = excluded.asked_at \
        WHERE asked_day.asked_at <> 0 AND asked_day.asked_at < excluded.asked_at";

    LISTED_CUSTOMERS = "SELECT c.customer_id, l.name, l.domain, l.raw \
        FROM listed_customer l JOIN customer c ON c.id = l.customer";
}

/// Replaces each `$` by `?`.
#[expect(
    clippy::indexing_slicing,
    reason = "an index out of range does not compile"
)]
const fn question_marks<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let (from, mut bytes) = (text.as_bytes(), [0; LENGTH]);
    let mut index = 0;
    while index < LENGTH {
        bytes[index] = match from[index] {
            b'$' => b'?',
            byte => byte,
        };
        index += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `$10` is no use of `$1`.
    fn uses(text: &str, number: usize) -> bool {
        text.match_indices(&format!("${number}"))
            .any(|(at, found)| {
                let after = text[at + found.len()..].chars().next();
                !after.is_some_and(|next| next.is_ascii_digit())
            })
    }

    #[test]
    fn parameters_are_numbered_without_gaps() {
        for (name, text) in ALL {
            let used = (1..=9).filter(|number| uses(text, *number)).count();
            assert!((1..=used).all(|number| uses(text, number)), "{name}");
            let dollars = text.matches('$').count();
            let numbered = text
                .split('$')
                .skip(1)
                .filter(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
                .count();
            assert_eq!(dollars, numbered, "{name}");
        }
    }
}

use jiff::Timestamp;
use prometheus::Registry;

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    domain::{DocumentSummary, LicenseUsage, ProcessedAt, RowName, UsageRow, samples},
    render::{ContentCoding, Format},
};

mod anomalies;

const SECOND: Duration = Duration::from_secs(1);

fn new_cache(max_bytes: u64) -> UsageCache {
    let config = CacheConfig {
        max_bytes,
        fresh_for: 60 * SECOND,
        stale_while_revalidate: 60 * SECOND,
        stale_if_error: 600 * SECOND,
        soft_timeout: 2 * SECOND,
        negative_fresh_for: 30 * SECOND,
        past_absence_fresh_for: 86_400 * SECOND,
        min_refresh_interval: 30 * SECOND,
        suspect_confirm_after: 30 * SECOND,
    };
    let metrics = CacheMetrics::new(&Registry::new()).unwrap();
    UsageCache::new(&config, Jitter::Fixed(0.5), metrics)
}

fn numbered_customer(number: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

fn parse_date(text: &str) -> ProcessedDate {
    ProcessedDate::parse(text).unwrap()
}

/// A snapshot of so many seats on a date, or an empty one.
fn rendered_usage(customer_id: CustomerId, processed: Option<&str>, seats: u64) -> Rendered {
    let rows = processed
        .map(|processed| UsageRow {
            product_name: "PLAN".into(),
            licenses_qualified: seats,
            processed_at: ProcessedAt(parse_date(processed).start()),
            ..samples::row()
        })
        .into_iter()
        .collect();
    let snapshot = LicenseUsage::new(customer_id, None, rows).unwrap();
    Rendered::new(&snapshot, Some(b"{}"), Timestamp::UNIX_EPOCH).unwrap()
}

fn insights_usage(customer: u128) -> Resource {
    Resource::InsightsUsage(numbered_customer(customer))
}

fn dated_usage(customer: u128, date: &str) -> Resource {
    Resource::dated_usage(numbered_customer(customer), parse_date(date))
}

impl UsageCache {
    /// Stores an answer of the insights call.
    fn store_insights(&self, rendered: Rendered, now: Instant) -> StoreResult {
        let customer = rendered.customer().unwrap();
        self.store(Resource::InsightsUsage(customer), rendered, now)
    }
}

fn look_up_newest(cache: &UsageCache, now: Instant) -> Option<CachedAnswer> {
    cache.look_up(insights_usage(1), now)
}

#[test]
fn newer_data_evicted_while_an_older_answer_is_rendered_is_still_served() {
    let cache = new_cache(1 << 20);
    let (now, resource) = (SystemClock.now(), insights_usage(1));
    let newest = Some("2026-11-19");
    cache.store_insights(rendered_usage(numbered_customer(1), newest, 5), now);
    let older = parse_date("2026-11-18");
    let Some(NewerData::Cached(newer)) = cache.newer_data(resource, Some(older), now) else {
        panic!("expected the cached data of the newer date");
    };
    cache
        .snapshots
        .remove(&NewestKey::from(resource).snapshot(newest.map(parse_date)));
    assert!(look_up_newest(&cache, now).is_none());

    let answer = rendered_usage(numbered_customer(1), Some("2026-11-18"), 4);
    let stored = cache.store_beside(resource, answer, Some(&newer), now);

    assert!(stored.answer.suspect);
    for served in [stored.answer, look_up_newest(&cache, now).unwrap()] {
        let date = served.rendered.processed_date();
        assert_eq!(date, newest.map(parse_date));
    }
}

#[test]
fn a_date_is_found_for_either_api_and_commercial_is_preferred() {
    let cache = new_cache(1 << 20);
    let now = SystemClock.now();
    let key = dated_usage(1, "2026-11-19");
    let look_up = |number| cache.look_up(dated_usage(number, "2026-11-19"), now);

    cache.store_insights(
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
        now,
    );
    let of_insights = look_up(1).unwrap();
    let stored = cache.store(
        key,
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 6),
        now,
    );
    cache.store_insights(
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 7),
        now,
    );

    assert_eq!(of_insights.rendered.rows(), 1);
    assert!(Arc::ptr_eq(
        &look_up(1).unwrap().rendered,
        &stored.answer.rendered
    ));
    assert!(look_up(2).is_none());
}

#[test]
fn a_dated_snapshot_stays_fresh_and_its_age_below_its_lifetime() {
    let cache = new_cache(1 << 20);
    let now = SystemClock.now();
    let key = dated_usage(1, "2026-11-19");
    cache.store(
        key,
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
        now,
    );

    let cached = cache.look_up(key, now + 1_000 * SECOND).unwrap();

    assert_eq!(cached.freshness, Freshness::Fresh);
    assert_eq!(cached.age, 1_000 * SECOND);
    assert_eq!(
        cached.cache_control,
        "private, max-age=1060, stale-while-revalidate=60"
    );
}

#[test]
fn a_soft_purged_entry_is_not_fresh() {
    let cache = new_cache(1 << 20);
    let now = SystemClock.now();
    let dated = dated_usage(1, "2026-11-19");
    cache.store_insights(
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
        now,
    );
    cache.purge(PurgeScope::default(), PurgeMode::Soft);

    for resource in [insights_usage(1), dated] {
        let cached = cache.look_up(resource, now + SECOND);
        let cached = cached.unwrap();

        assert_eq!(cached.cache_control, "private, max-age=0", "{resource:?}");
        assert_eq!(cached.ttl, -1, "{resource:?}");
    }
}

#[test]
fn content_that_returns_has_a_new_modification_time() {
    let cache = new_cache(1 << 20);
    let now = SystemClock.now();
    let at = |second| Timestamp::from_second(second).unwrap();
    let empty = |second| {
        let snapshot = LicenseUsage::new(numbered_customer(1), None, Vec::new()).unwrap();
        Rendered::new(&snapshot, None, at(second)).unwrap()
    };
    let modified = |cached: &CachedAnswer| {
        let (document, _) = cached
            .rendered
            .ready(Format::Simplified, ContentCoding::Identity)
            .unwrap();
        document.modified_at()
    };
    cache.store_insights(empty(1), now);
    cache.store_insights(
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
        now,
    );

    cache.store_insights(empty(5), now);
    let back = cache.store_insights(empty(9), now + 30 * SECOND);
    let again = cache.store_insights(empty(20), now + 30 * SECOND);

    assert_eq!(modified(&back.answer), at(9));
    assert_eq!(modified(&again.answer), at(9));
}

#[test]
fn a_purge_of_a_date_also_purges_the_newest_entry_of_that_date() {
    for mode in [PurgeMode::Soft, PurgeMode::Hard] {
        let cache = new_cache(1 << 20);
        let now = SystemClock.now();
        cache.store_insights(
            rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
            now,
        );
        let on = |day| PurgeScope {
            customer_id: None,
            processed_date: Some(parse_date(day)),
        };

        assert_eq!(cache.purge(on("2026-11-18"), mode), 0);
        assert_eq!(
            look_up_newest(&cache, now).unwrap().freshness,
            Freshness::Fresh
        );
        assert_eq!(cache.purge(on("2026-11-19"), mode), 1);

        let left = look_up_newest(&cache, now).map(|cached| cached.freshness);
        match mode {
            PurgeMode::Soft => assert_eq!(left, Some(Freshness::StaleIfError)),
            PurgeMode::Hard => assert_eq!(left, None),
        }
    }
}

#[test]
fn a_stored_answer_is_found_however_small_the_cache() {
    for max_bytes in [1, 4_000, 16 << 10, 64 << 10, 256 << 10] {
        for day in [None, Some("2026-11-19")] {
            let cache = new_cache(max_bytes);
            let now = SystemClock.now();

            let stored = cache.store_insights(rendered_usage(numbered_customer(1), day, 5), now);
            cache.overview();

            let is_found = look_up_newest(&cache, now).is_some();
            assert_eq!(is_found, stored.stored, "{max_bytes} {day:?}");
        }
    }
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let cache = new_cache(64 << 10);
    let now = SystemClock.now();

    for number in 0..1_000 {
        cache.store_insights(
            rendered_usage(numbered_customer(number), Some("2026-11-19"), 5),
            now,
        );
    }

    let overview = cache.overview();
    assert!(
        overview.weight_bytes <= overview.capacity_bytes,
        "{overview:?}"
    );
    assert!(overview.entries > 10, "{overview:?}");
    assert!(cache.metrics().evicted_for_size.get() > 900);
}

#[test]
fn a_flood_of_customers_without_rows_evicts_none_with_rows() {
    const CACHED: usize = 8;
    let cache = new_cache(64 << 10);
    let now = SystemClock.now();
    for number in 0..5_000 {
        cache.store_insights(
            rendered_usage(numbered_customer(1_000 + number), None, 0),
            now,
        );
    }
    cache.overview();

    for number in 0..CACHED as u128 {
        cache.store_insights(
            rendered_usage(numbered_customer(number), Some("2026-11-19"), 5),
            now,
        );
    }
    cache.overview();

    let cached = (0..CACHED as u128).filter(|number| {
        let cached = cache.look_up(insights_usage(*number), now);
        cached.is_some()
    });
    assert_eq!(cached.count(), CACHED, "there was room for all of them");
    let overview = cache.overview();
    assert!(overview.weight_bytes <= overview.capacity_bytes / 2);
}

#[test]
fn undated_answers_are_compared_by_rows() {
    let cache = new_cache(256 << 10);
    let now = SystemClock.now();
    let question = Resource::PartnerUsage;
    let row = || RowName {
        service: Some("o365".into()),
        product: None,
        workload: None,
        channel: None,
    };
    let outline = |rows: usize| DocumentSummary::new(None, (0..rows).map(|_| row()).collect());
    let document = |outline: &DocumentSummary| {
        Rendered::of_document(None, outline, b"{}", Timestamp::UNIX_EPOCH)
    };
    cache.store(question, document(&outline(20)), now);
    cache.overview();

    for number in 0..5_000 {
        cache.store_insights(rendered_usage(numbered_customer(number), None, 0), now);
    }
    cache.overview();
    let cached = cache.look_up(question, now);
    let emptied = cache.store(question, document(&outline(0)), now);
    let conceded = cache.store(question, document(&outline(0)), now + 60 * SECOND);
    let filled = cache.store(question, document(&outline(20)), now + 61 * SECOND);

    assert_eq!(cached.unwrap().rendered.rows(), 20);
    assert_eq!(emptied.change, StoreChange::Suspect(AnomalyKind::Empty));
    assert_eq!(conceded.change, StoreChange::AcceptedAfterRepeat);
    let cached = cache.look_up(question, now + 61 * SECOND);
    assert_eq!(cached.unwrap().rendered.rows(), 20);
    assert!(filled.stored);
    let of_partner = cache.entries(None, now);
    assert_eq!(of_partner.len(), 1, "in one place at a time");
}

#[test]
fn a_format_rendered_later_adds_to_the_weight() {
    let cache = new_cache(1 << 20);
    let now = SystemClock.now();
    let stored = cache.store_insights(
        rendered_usage(numbered_customer(1), Some("2026-11-19"), 5),
        now,
    );
    let before = cache.overview().weight_bytes;

    let rendered = stored.answer.rendered;
    rendered.render(Format::Csv, ContentCoding::Gzip).unwrap();
    cache.update_weight(&rendered);

    assert!(cache.overview().weight_bytes > before);
}

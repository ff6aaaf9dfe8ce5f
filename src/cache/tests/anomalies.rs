//! Suspect answers: cached data stays until they are repeated.

use super::*;

/// A cache with twenty rows of customer 1, from the insights call. Missing rows are accepted after
/// thirty seconds.
struct AnomalyFixture {
    cache: UsageCache,
    start: Instant,
}

impl AnomalyFixture {
    fn new() -> Self {
        let fixture = Self {
            cache: new_cache(1 << 20),
            start: SystemClock.now(),
        };
        fixture.store_at(0, rendered_rows("2026-11-19", 0..20, 5));
        fixture
    }

    /// Stores an answer so many seconds after the start.
    fn store_at(&self, second: u32, rendered: Rendered) -> StoreResult {
        self.cache
            .store_insights(rendered, self.start + second * SECOND)
    }

    fn look_up_at(&self, second: u32) -> CachedAnswer {
        look_up_newest(&self.cache, self.start + second * SECOND).unwrap()
    }
}

/// Returns so many seats of each of these products.
fn rendered_rows(processed: &str, products: std::ops::Range<u32>, seats: u64) -> Rendered {
    let rows = products.map(|product| UsageRow {
        product_name: format!("PLAN {product}").into(),
        licenses_qualified: seats,
        processed_at: ProcessedAt(parse_date(processed).start()),
        ..samples::row()
    });
    let snapshot = LicenseUsage::new(numbered_customer(1), None, rows.collect()).unwrap();
    Rendered::new(&snapshot, Some(b"{}"), Timestamp::UNIX_EPOCH).unwrap()
}

fn rendered_without_rows() -> Rendered {
    rendered_usage(numbered_customer(1), None, 0)
}

#[test]
fn the_next_fetch_comes_when_the_anomaly_can_be_confirmed() {
    let fixture = AnomalyFixture::new();

    fixture.store_at(70, rendered_without_rows());

    assert_eq!(fixture.look_up_at(99).freshness, Freshness::Fresh);
    assert_eq!(fixture.look_up_at(99).ttl, 1);
    assert_eq!(
        fixture.look_up_at(99).cache_control,
        "private, max-age=100, stale-while-revalidate=60"
    );
    assert_eq!(
        fixture.look_up_at(100).freshness,
        Freshness::StaleWhileRevalidate
    );
}

#[test]
fn a_repeated_answer_is_accepted_unless_it_comes_too_soon() {
    let fixture = AnomalyFixture::new();
    fixture.store_at(70, rendered_without_rows());

    let hasty = fixture.store_at(99, rendered_without_rows());
    let second = fixture.store_at(100, rendered_without_rows());

    assert_eq!(hasty.change, StoreChange::Suspect(AnomalyKind::Empty));
    assert_eq!(second.change, StoreChange::AcceptedAfterRepeat);
    let cached = fixture.look_up_at(101);
    assert_eq!((cached.rendered.rows(), cached.suspect), (0, false));
}

#[test]
fn a_repeat_may_have_other_counts_and_dates() {
    let fixture = AnomalyFixture::new();
    let first = fixture.store_at(70, rendered_rows("2026-11-19", 0..2, 5));

    let second = fixture.store_at(100, rendered_rows("2026-11-20", 0..2, 6));

    assert_eq!(first.change, StoreChange::Suspect(AnomalyKind::Shrunken));
    assert_eq!(second.change, StoreChange::AcceptedAfterRepeat);
    assert_eq!(fixture.look_up_at(101).rendered.rows(), 2);
}

#[test]
fn other_rows_restart_the_confirmation_wait() {
    let fixture = AnomalyFixture::new();
    fixture.store_at(70, rendered_rows("2026-11-19", 0..2, 5));

    let other = fixture.store_at(100, rendered_rows("2026-11-19", 2..4, 5));
    let empty = fixture.store_at(130, rendered_without_rows());
    let hasty = fixture.store_at(159, rendered_without_rows());

    assert_eq!(other.change, StoreChange::Suspect(AnomalyKind::Shrunken));
    assert_eq!(empty.change, StoreChange::Suspect(AnomalyKind::Empty));
    assert_eq!(hasty.change, StoreChange::Suspect(AnomalyKind::Empty));
    assert_eq!(
        fixture.store_at(160, rendered_without_rows()).change,
        StoreChange::AcceptedAfterRepeat
    );
}

#[test]
fn a_soft_purge_ends_the_anomaly_and_a_hard_purge_accepts_any_answer() {
    for (mode, change) in [
        (PurgeMode::Soft, StoreChange::Suspect(AnomalyKind::Empty)),
        (PurgeMode::Hard, StoreChange::New),
    ] {
        let fixture = AnomalyFixture::new();
        fixture.store_at(70, rendered_without_rows());
        fixture.cache.purge(PurgeScope::default(), mode);
        let left = look_up_newest(&fixture.cache, fixture.start + 71 * SECOND);
        assert!(left.is_none_or(|cached| !cached.suspect), "{mode:?}");

        let empty = fixture.store_at(100, rendered_without_rows());

        assert_eq!(empty.change, change, "{mode:?}");
    }
}

#[test]
fn an_expired_answer_is_not_served_in_place_of_a_suspect_one() {
    // Fresh for a minute, and in place of an error for ten.
    let fixture = AnomalyFixture::new();

    let late = fixture.store_at(659, rendered_without_rows());
    let until = late.answer.ttl;
    let too_late = AnomalyFixture::new().store_at(660, rendered_without_rows());

    assert_eq!(late.change, StoreChange::Suspect(AnomalyKind::Empty));
    assert_eq!(until, 1, "asked again when it expires");
    assert_eq!(too_late.change, StoreChange::New);
}

#[test]
fn an_older_date_with_rows_is_stored_for_dated_requests() {
    let fixture = AnomalyFixture::new();
    let older = |cached| {
        let question = dated_usage(1, "2026-11-18");
        let cached: Option<CachedAnswer> = fixture.cache.look_up(question, cached);
        cached.map(|cached| cached.rendered.rows())
    };

    assert!(
        fixture
            .store_at(70, rendered_rows("2026-11-18", 0..20, 5))
            .stored
    );
    assert!(
        !fixture
            .store_at(80, rendered_rows("2026-11-18", 0..1, 5))
            .stored
    );

    assert_eq!(older(fixture.start), Some(20));
}

#[test]
fn a_suspect_answer_to_a_dated_request_is_fetched_again() {
    let cache = new_cache(1 << 20);
    let start = SystemClock.now();
    let dated = dated_usage(1, "2026-11-19");
    let tell = |second: u32, stored| cache.store(dated, stored, start + second * SECOND);
    let at = |second: u32| cache.look_up(dated, start + second * SECOND).unwrap();
    tell(0, rendered_rows("2026-11-19", 0..20, 5));

    let first = tell(70, rendered_rows("2026-11-19", 0..2, 5));
    let meanwhile = (at(99).suspect, at(99).freshness, at(100).freshness);
    let second = tell(100, rendered_rows("2026-11-19", 0..2, 5));

    assert_eq!(first.change, StoreChange::Suspect(AnomalyKind::Shrunken));
    assert_eq!(first.answer.rendered.rows(), 20);
    assert_eq!(
        meanwhile,
        (true, Freshness::Fresh, Freshness::StaleIfError),
        "upstream is asked again, though a dated answer does not go stale"
    );
    assert_eq!(second.change, StoreChange::AcceptedAfterRepeat);
    assert_eq!((at(101).rendered.rows(), at(101).suspect), (2, false));
}

#[test]
fn without_a_confirmation_time_every_answer_is_accepted() {
    let nothing = anomaly::AnswerDigest::EMPTY;
    let kind = Some(AnomalyKind::Empty);

    let now = SystemClock.now();
    let check = anomaly::Check::evaluate(nothing, kind, None, Duration::ZERO, now);

    assert_eq!(check, anomaly::Check::Accepted);
}

#[test]
fn growth_is_accepted_when_a_second_answer_has_a_similar_sum() {
    // Twenty products of five licenses each are cached: a hundred in all.
    for (second, change) in [
        (11, StoreChange::AcceptedAfterRepeat),
        (40, StoreChange::Suspect(AnomalyKind::Grown)),
        (5, StoreChange::Unchanged),
    ] {
        let fixture = AnomalyFixture::new();
        let first = fixture.store_at(70, rendered_rows("2026-11-19", 0..20, 10));

        let second = fixture.store_at(100, rendered_rows("2026-11-19", 0..20, second));

        assert_eq!(first.change, StoreChange::Suspect(AnomalyKind::Grown));
        assert_eq!(first.answer.rendered.licenses_qualified(), 100);
        assert_eq!(second.change, change);
    }
}

//! Answers that are doubted: what is held stays, until they are told again.

use super::*;

/// A cache that holds twenty rows of customer 1, as told by the insights call. Missing rows are
/// believed after thirty seconds.
struct Holding {
    cache: UsageCache,
    start: Instant,
}

impl Holding {
    fn new() -> Self {
        let holding = Self {
            cache: cache(1 << 20),
            start: SystemClock.now(),
        };
        holding.tell(0, rows("2026-11-19", 0..20, 5));
        holding
    }

    /// Upstream tells this, so many seconds after the start.
    fn tell(&self, second: u32, told: Prepared) -> Stored {
        self.cache
            .store(INSIGHTS, told, self.start + second * SECOND)
    }

    fn at(&self, second: u32) -> Held {
        newest(&self.cache, self.start + second * SECOND).unwrap()
    }

    fn suspects(&self, suspicion: Suspicion) -> u64 {
        self.cache.metrics().suspects[suspicion as usize].get()
    }
}

/// So many seats of each of these products.
fn rows(processed: &str, products: std::ops::Range<u32>, seats: u64) -> Prepared {
    let rows = products.map(|product| UsageRow {
        product_name: format!("PLAN {product}"),
        licenses_qualified: seats,
        processed_at: ProcessedAt(date(processed).start()),
        ..samples::row()
    });
    let snapshot = Snapshot::new(customer(1), None, rows.collect()).unwrap();
    Prepared::new(&snapshot, Some(b"{}"), Timestamp::UNIX_EPOCH).unwrap()
}

fn nothing() -> Prepared {
    prepared(customer(1), None, 0)
}

#[test]
fn what_is_held_outlives_an_empty_answer_and_its_age_goes_on() {
    let holding = Holding::new();

    let told = holding.tell(70, nothing());

    assert_eq!(told.change, Change::Doubted(Suspicion::Empty));
    assert!(!told.stored);
    assert_eq!(told.held.prepared.rows(), 20);
    assert_eq!(told.held.age, 70 * SECOND);
    let held = holding.at(80);
    assert!(held.suspect);
    assert_eq!((held.prepared.rows(), held.age), (20, 80 * SECOND));
    assert_eq!(holding.suspects(Suspicion::Empty), 1);
}

#[test]
fn upstream_is_asked_again_once_the_doubt_can_be_settled_and_not_before() {
    let holding = Holding::new();

    holding.tell(70, nothing());

    assert_eq!(holding.at(99).freshness, Freshness::Fresh);
    assert_eq!(holding.at(99).ttl, 1);
    assert_eq!(
        holding.at(99).cache_control,
        "private, max-age=100, stale-while-revalidate=60"
    );
    assert_eq!(holding.at(100).freshness, Freshness::StaleWhileRevalidate);
}

#[test]
fn a_second_answer_that_says_the_same_is_believed_and_a_hasty_one_is_not() {
    let holding = Holding::new();
    holding.tell(70, nothing());

    let hasty = holding.tell(99, nothing());
    let second = holding.tell(100, nothing());

    assert_eq!(hasty.change, Change::Doubted(Suspicion::Empty));
    assert_eq!(second.change, Change::Conceded);
    let held = holding.at(101);
    assert_eq!((held.prepared.rows(), held.suspect), (0, false));
}

#[test]
fn the_same_few_rows_are_the_same_whatever_their_counts_and_dates() {
    let holding = Holding::new();
    let first = holding.tell(70, rows("2026-11-19", 0..2, 5));

    let second = holding.tell(100, rows("2026-11-20", 0..2, 6));

    assert_eq!(first.change, Change::Doubted(Suspicion::Shrunken));
    assert_eq!(second.change, Change::Conceded);
    assert_eq!(holding.at(101).prepared.rows(), 2);
}

#[test]
fn other_rows_are_another_story_and_the_wait_begins_anew() {
    let holding = Holding::new();
    holding.tell(70, rows("2026-11-19", 0..2, 5));

    let other = holding.tell(100, rows("2026-11-19", 2..4, 5));
    let empty = holding.tell(130, nothing());
    let hasty = holding.tell(159, nothing());

    assert_eq!(other.change, Change::Doubted(Suspicion::Shrunken));
    assert_eq!(empty.change, Change::Doubted(Suspicion::Empty));
    assert_eq!(hasty.change, Change::Doubted(Suspicion::Empty));
    assert_eq!(holding.tell(160, nothing()).change, Change::Conceded);
}

#[test]
fn good_data_ends_the_doubt() {
    let holding = Holding::new();
    holding.tell(70, nothing());

    let good = holding.tell(80, rows("2026-11-19", 0..20, 5));
    let empty = holding.tell(120, nothing());

    assert_eq!(good.change, Change::Confirmed);
    assert_eq!(empty.change, Change::Doubted(Suspicion::Empty));
}

#[test]
fn a_soft_purge_ends_the_doubt_and_a_hard_one_takes_what_comes() {
    for (mode, change) in [
        (PurgeMode::Soft, Change::Doubted(Suspicion::Empty)),
        (PurgeMode::Hard, Change::New),
    ] {
        let holding = Holding::new();
        holding.tell(70, nothing());
        holding.cache.purge(PurgeScope::default(), mode);
        let left = newest(&holding.cache, holding.start + 71 * SECOND);
        assert!(left.is_none_or(|held| !held.suspect), "{mode:?}");

        let empty = holding.tell(100, nothing());

        assert_eq!(empty.change, change, "{mode:?}");
    }
}

#[test]
fn what_has_expired_does_not_stand_in_for_a_doubt() {
    // Fresh for a minute, and in place of an error for ten.
    let holding = Holding::new();

    let late = holding.tell(659, nothing());
    let until = late.held.ttl;
    let too_late = Holding::new().tell(660, nothing());

    assert_eq!(late.change, Change::Doubted(Suspicion::Empty));
    assert_eq!(until, 1, "asked again when it expires");
    assert_eq!(too_late.change, Change::New);
}

#[test]
fn a_date_that_goes_backwards_is_not_taken_however_often_it_is_told() {
    let holding = Holding::new();
    let backwards = Change::Doubted(Suspicion::WentBackwards);

    for second in [70, 200, 2_000] {
        let told = holding.tell(second, rows("2026-11-18", 0..20, 5));

        assert_eq!(told.change, backwards);
        let held = holding.at(second + 59);
        assert_eq!(held.prepared.processed_date(), Some(date("2026-11-19")));
        assert_eq!(held.freshness, Freshness::Fresh, "nobody asks at once");
        assert_eq!(held.age, (second + 59) * SECOND);
    }
    assert_eq!(holding.suspects(Suspicion::WentBackwards), 3);
}

#[test]
fn an_older_date_is_filed_for_those_who_ask_for_it_unless_it_lacks_rows() {
    let holding = Holding::new();
    let older = |held| {
        let question = Question::Dated(date("2026-11-18"));
        let held: Option<Held> = holding.cache.look_up(customer(1).into(), question, held);
        held.map(|held| held.prepared.rows())
    };

    assert!(holding.tell(70, rows("2026-11-18", 0..20, 5)).stored);
    assert!(!holding.tell(80, rows("2026-11-18", 0..1, 5)).stored);

    assert_eq!(older(holding.start), Some(20));
}

#[test]
fn a_date_asked_for_by_name_is_doubted_and_asked_for_again() {
    let cache = cache(1 << 20);
    let start = SystemClock.now();
    let dated = Question::Dated(date("2026-11-19"));
    let tell = |second: u32, told| cache.store(dated, told, start + second * SECOND);
    let at = |second: u32| {
        cache
            .look_up(customer(1).into(), dated, start + second * SECOND)
            .unwrap()
    };
    tell(0, rows("2026-11-19", 0..20, 5));

    let first = tell(70, rows("2026-11-19", 0..2, 5));
    let meanwhile = (at(99).suspect, at(99).freshness, at(100).freshness);
    let second = tell(100, rows("2026-11-19", 0..2, 5));

    assert_eq!(first.change, Change::Doubted(Suspicion::Shrunken));
    assert_eq!(first.held.prepared.rows(), 20);
    assert_eq!(
        meanwhile,
        (true, Freshness::Fresh, Freshness::StaleIfError),
        "a doubt has upstream asked, though a date is settled otherwise"
    );
    assert_eq!(second.change, Change::Conceded);
    assert_eq!((at(101).prepared.rows(), at(101).suspect), (2, false));
}

#[test]
fn without_a_time_to_confirm_nothing_is_doubted() {
    let nothing = doubt::AnswerDigest::NOTHING;
    let suspicion = Some(Suspicion::Empty);

    let now = SystemClock.now();
    let verdict = doubt::Verdict::on(nothing, suspicion, None, Duration::ZERO, now);

    assert_eq!(verdict, doubt::Verdict::Believed);
}

#[test]
fn growth_is_believed_when_a_second_answer_has_about_the_same_sum() {
    // Twenty products of five licenses each are cached: a hundred in all.
    for (second, change) in [
        (11, Change::Conceded),
        (40, Change::Doubted(Suspicion::Grown)),
        (5, Change::Confirmed),
    ] {
        let holding = Holding::new();
        let first = holding.tell(70, rows("2026-11-19", 0..20, 10));

        let second = holding.tell(100, rows("2026-11-19", 0..20, second));

        assert_eq!(first.change, Change::Doubted(Suspicion::Grown));
        assert_eq!(first.held.prepared.licenses_qualified(), 100);
        assert_eq!(second.change, change);
    }
}

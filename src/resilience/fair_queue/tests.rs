use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue(places: usize) -> FairQueue<u32> {
    FairQueue::new(Limits {
        places: NonZeroUsize::new(places).unwrap(),
        patience: 25 * SECOND,
        waiting: 200,
        waiting_per_caller: 100,
    })
}

fn caller(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn refused(admission: Admission) -> Refusal {
    match admission {
        Admission::Refused(refusal) => refusal,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[test]
fn a_caller_never_holds_more_than_its_share_and_another_finds_a_place() {
    let mut queue = queue(4);
    let (flood, other) = (caller("flood"), caller("other"));

    let flooding: Vec<_> = (0..10).map(|n| queue.enter(&flood, 2, || n)).collect();

    assert_eq!(flooding[..2], [Admission::Granted, Admission::Granted]);
    assert!(
        flooding[2..]
            .iter()
            .all(|admission| matches!(admission, Admission::Waits(_)))
    );
    assert_eq!(queue.enter(&other, 2, || 99), Admission::Granted);
}

#[test]
fn callers_take_turns_however_long_their_lines_are() {
    let mut queue = queue(1);
    let (flood, other) = (caller("flood"), caller("other"));
    queue.enter(&flood, 1, || 0);
    for waiter in 1..50 {
        queue.enter(&flood, 1, || waiter);
    }
    queue.enter(&other, 1, || 1_000);
    queue.enter(&other, 1, || 1_001);

    let mut served = Vec::new();
    let mut holder = flood.clone();
    for _ in 0..5 {
        let next = queue.leave(&holder, Some(Duration::ZERO)).unwrap();
        holder = if next >= 1_000 { &other } else { &flood }.clone();
        served.push(next);
    }

    assert_eq!(served, [1, 1_000, 2, 1_001, 3]);
}

#[test]
fn a_place_goes_past_a_caller_that_holds_its_share() {
    let mut queue = queue(3);
    let (flood, other) = (caller("flood"), caller("other"));
    for waiter in 0..5 {
        queue.enter(&flood, 1, || waiter);
    }
    for waiter in 10..13 {
        queue.enter(&other, 2, || waiter);
    }

    assert_eq!(queue.leave(&other, None), Some(12));
    assert_eq!(queue.leave(&flood, None), Some(1));
}

#[test]
fn who_gives_up_is_passed_over() {
    let mut queue = queue(1);
    let only = caller("only");
    queue.enter(&only, 1, || 0);
    let Admission::Waits(first) = queue.enter(&only, 1, || 1) else {
        panic!("expected to wait");
    };
    queue.enter(&only, 1, || 2);

    assert!(queue.abandon(&only, first));

    assert_eq!(queue.leave(&only, None), Some(2));
    assert!(!queue.abandon(&only, first));
    assert_eq!(queue.leave(&only, None), None);
    assert!(queue.lines.is_empty() && queue.turns.is_empty());
}

#[test]
fn who_could_not_be_served_in_time_is_refused_and_told_when_to_come_back() {
    let mut queue = queue(2);
    let only = caller("only");
    queue.enter(&only, 2, || 0);
    queue.leave(&only, Some(2 * SECOND));

    // Two places, two seconds each: one is served each second, and takes two more.
    let waiting = (0..)
        .map(|waiter| queue.enter(&only, 2, || waiter))
        .skip(2)
        .take_while(|admission| matches!(admission, Admission::Waits(_)))
        .count();
    let refusal = refused(queue.enter(&only, 2, || 0));

    assert_eq!(waiting, 23);
    assert_eq!(refusal.reason, Reason::Caller);
    assert_eq!(refusal.retry_after, 24 * SECOND);
}

#[test]
fn others_are_to_blame_where_the_caller_alone_would_be_served() {
    let mut queue = queue(4);
    let (flood, other) = (caller("flood"), caller("other"));
    queue.enter(&flood, 4, || 0);
    queue.leave(&flood, Some(8 * SECOND));
    for waiter in 0..8 {
        queue.enter(&flood, 4, || waiter);
    }

    let turns: Vec<_> = (0..8).map(|n| queue.enter(&other, 4, || n)).collect();

    // Two of four places work for it: of its own it could have four wait for 16 s and hold for 8.
    assert!(matches!(turns[3], Admission::Waits(_)));
    assert_eq!(refused(turns[4]).reason, Reason::Queue);
    assert_eq!(refused(turns[4]).retry_after, 20 * SECOND);
}

#[test]
fn no_more_wait_than_there_is_memory_for() {
    let mut queue = queue(1);
    let names: Vec<_> = ["a", "b", "c"].map(caller).into();

    let refusals: Vec<_> = names
        .iter()
        .map(|name| {
            let refused = (0..150).find_map(|n| match queue.enter(name, 1, || n) {
                Admission::Refused(refusal) => Some(refusal),
                Admission::Granted | Admission::Waits(_) => None,
            });
            refused.unwrap()
        })
        .collect();

    assert_eq!(queue.waiting(), 200);
    assert_eq!(
        refusals.iter().map(|r| r.reason).collect::<Vec<_>>(),
        [Reason::Caller, Reason::Caller, Reason::Queue]
    );
    assert!(
        refusals.iter().all(|r| r.retry_after == 25 * SECOND),
        "nobody knows better before the first has ended"
    );
}

#[test]
fn the_holding_time_follows_what_is_seen() {
    let mut queue = queue(1);
    let only = caller("only");
    let mut hold = |time| {
        queue.enter(&only, 1, || 0);
        queue.leave(&only, Some(time));
        queue.holding_time.unwrap()
    };

    assert_eq!(hold(8 * SECOND), 8 * SECOND);
    assert_eq!(hold(Duration::ZERO), 7 * SECOND);
    for _ in 0..100 {
        hold(Duration::from_millis(100));
    }
    assert!(hold(Duration::from_millis(100)) < Duration::from_millis(101));
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn places_are_never_overdrawn_and_never_idle_while_someone_may_have_one(
        steps in proptest::collection::vec((0..3_usize, 0..4_u8), 1..200),
    ) {
        let shares = [1, 2, 4];
        let names = ["a", "b", "c"].map(caller);
        let mut queue = FairQueue::new(Limits {
            places: NonZeroUsize::new(4).unwrap(),
            patience: 25 * SECOND,
            waiting: 20,
            waiting_per_caller: 10,
        });
        let mut held = [0_usize; 3];
        let mut waiting: [Vec<u64>; 3] = Default::default();
        for (who, what) in steps {
            match what {
                0 | 1 => match queue.enter(&names[who], shares[who], || who) {
                    Admission::Granted => held[who] += 1,
                    Admission::Waits(ticket) => waiting[who].push(ticket),
                    Admission::Refused(_) => {}
                },
                2 if held[who] > 0 => {
                    held[who] -= 1;
                    if let Some(next) = queue.leave(&names[who], None) {
                        held[next] += 1;
                        waiting[next].remove(0);
                    }
                }
                3 if !waiting[who].is_empty() => {
                    let ticket = waiting[who].pop().unwrap();
                    prop_assert!(queue.abandon(&names[who], ticket));
                }
                _ => {}
            }

            let all: usize = held.iter().sum();
            prop_assert!(all <= 4);
            prop_assert_eq!(queue.held, all);
            prop_assert_eq!(queue.waiting(), waiting.iter().map(Vec::len).sum::<usize>());
            for caller in 0..3 {
                prop_assert!(held[caller] <= shares[caller]);
                let idle = all < 4 && held[caller] < shares[caller];
                prop_assert!(!idle || waiting[caller].is_empty(), "someone waits for nothing");
            }
        }
    }
}

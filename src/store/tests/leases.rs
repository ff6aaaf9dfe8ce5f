//! Leases, on a database and behind PgBouncer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::fixtures::{TestPlace, customer, newest, row, usage};
use crate::{
    cache::{PurgeMode, PurgeScope},
    domain::{Resource, UpstreamApi},
    store::{
        AcceptedSnapshot, Coordination, LEASE_TIME, Lease, LeaseAttempt, LeaseEnd, StoreWrite,
        UsageStore, WantedLease, lease_name,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// Two processes that use the same database.
struct Replicas {
    stores: [Arc<dyn UsageStore>; 2],
    place: TestPlace,
}

impl Replicas {
    async fn on(place: TestPlace) -> Self {
        let stores = [
            place.open(UpstreamApi::Insights).await,
            place.open(UpstreamApi::Insights).await,
        ];
        Self { stores, place }
    }

    fn first(&self) -> &dyn Coordination {
        self.stores[0].coordination().unwrap()
    }

    fn second(&self) -> &dyn Coordination {
        self.stores[1].coordination().unwrap()
    }

    /// Lets all leases expire now.
    fn expire_all(&self) {
        self.psql("UPDATE usage_proxy.lease SET expires_at = 1");
    }

    fn psql(&self, statements: &str) {
        let (TestPlace::Database(database) | TestPlace::Pooled(database)) = &self.place else {
            panic!("a file has no leases");
        };
        database.psql(statements);
    }
}

fn wanted(name: &str) -> WantedLease {
    WantedLease {
        name: name.into(),
        unknown_since: Duration::ZERO,
        is_urgent: true,
    }
}

async fn granted(replica: &dyn Coordination, name: &str) -> Lease {
    match replica.acquire_lease(wanted(name)).await.unwrap() {
        LeaseAttempt::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn of_many_contenders_one_gets_the_lease(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let mut fences = BTreeSet::new();

    for _ in 0..10 {
        let contenders = (0..16).map(|index| {
            let replica = [replicas.first(), replicas.second()][index % 2];
            replica.acquire_lease(wanted("question"))
        });
        let attempts = join_all(contenders).await;
        let mut holders = Vec::new();
        for attempt in attempts {
            match attempt.unwrap() {
                LeaseAttempt::Granted(lease) => holders.push(lease),
                other => assert_eq!(other, LeaseAttempt::Held),
            }
        }
        assert_eq!(holders.len(), 1);
        let last = fences.last().copied();
        assert!(last < Some(holders[0].fence), "fences must grow");
        fences.insert(holders[0].fence);
        let end = LeaseEnd::Abandoned;
        replicas
            .first()
            .release_lease(holders.remove(0), end)
            .await
            .unwrap();
    }
}

async fn an_expired_lease_is_lost_to_the_next_holder(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let slow = granted(replicas.first(), "question").await;
    assert!(replicas.first().renew_lease(slow.clone()).await.unwrap());

    replicas.expire_all();
    let next = granted(replicas.second(), "question").await;

    assert!(next.fence > slow.fence);
    assert!(!replicas.first().renew_lease(slow.clone()).await.unwrap());
    let release = replicas.first().release_lease(slow, LeaseEnd::Finished);
    release.await.unwrap();
    let held = replicas.first().acquire_lease(wanted("question")).await;
    assert_eq!(held.unwrap(), LeaseAttempt::Held);
}

async fn a_lease_is_given_back_that_came_too_late_for_its_caller(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let mut abandoned = replicas.first().acquire_lease(wanted("question"));
    assert!(futures_util::poll!(&mut abandoned).is_pending());
    drop(abandoned);

    let taken = async {
        loop {
            let attempt = replicas.second().acquire_lease(wanted("question")).await;
            if let LeaseAttempt::Granted(lease) = attempt.unwrap() {
                return lease;
            }
        }
    };
    let before_it_expires = tokio::time::timeout(LEASE_TIME / 2, taken).await;

    assert!(before_it_expires.is_ok());
}

async fn a_result_is_known_to_those_who_have_not_seen_it(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let lease = granted(replicas.first(), "question").await;
    let release = replicas.first().release_lease(lease, LeaseEnd::Finished);
    release.await.unwrap();

    let waited = WantedLease {
        unknown_since: MINUTE,
        ..wanted("question")
    };
    let finished = replicas.second().acquire_lease(waited).await.unwrap();

    assert_eq!(finished, LeaseAttempt::Finished);
    granted(replicas.second(), "another question").await;
    let seen = WantedLease {
        unknown_since: Duration::ZERO,
        ..wanted("question")
    };
    // It counts as unknown in the very millisecond of its end.
    while replicas.second().acquire_lease(seen.clone()).await.unwrap() == LeaseAttempt::Finished {}
}

async fn a_failure_counts_for_all_while_it_lasts(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let end = |lifetime| LeaseEnd::Failed {
        failure: "refused".to_owned(),
        lifetime,
    };
    let lease = granted(replicas.first(), "question").await;
    replicas
        .first()
        .release_lease(lease, end(MINUTE))
        .await
        .unwrap();

    let attempt = replicas.second().acquire_lease(wanted("question")).await;
    match attempt.unwrap() {
        LeaseAttempt::Failed { failure, remaining } => {
            assert_eq!(failure, "refused");
            assert!(remaining <= MINUTE, "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }

    let lease = granted(replicas.first(), "another question").await;
    let release = replicas
        .first()
        .release_lease(lease, end(Duration::ZERO))
        .await;
    release.unwrap();
    granted(replicas.second(), "another question").await;
}

async fn what_comes_under_a_lost_lease_is_not_stored(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let lease = granted(replicas.first(), "question").await;
    let usage = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let written =
        |lease: &Lease| match newest(UpstreamApi::Insights, &usage, "2026-11-28T06:00:00Z") {
            StoreWrite::Snapshot(accepted) => StoreWrite::Snapshot(AcceptedSnapshot {
                lease: Some(lease.clone()),
                ..accepted
            }),
            other => other,
        };
    let is_stored = async || {
        let resource = Resource::InsightsUsage(customer(1));
        let found = replicas.stores[1].snapshot(resource).await.unwrap();
        found.is_some()
    };

    replicas.expire_all();
    let next = granted(replicas.second(), "question").await;
    replicas.stores[0]
        .write(vec![written(&lease)])
        .await
        .unwrap();
    assert!(!is_stored().await);

    let release = replicas.second().release_lease(next, LeaseEnd::Abandoned);
    release.await.unwrap();
    replicas.stores[0]
        .write(vec![written(&lease)])
        .await
        .unwrap();
    assert!(!is_stored().await);

    let held = granted(replicas.first(), "question").await;
    replicas.stores[0]
        .write(vec![written(&held)])
        .await
        .unwrap();
    assert!(is_stored().await);
}

async fn a_row_without_sense_blocks_nobody(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let name = lease_name(Resource::InsightsUsage(customer(1))).unwrap();
    for poison in [
        "expires_at = 9223372036854775807",
        "expires_at = -9223372036854775808, fence = -9223372036854775808",
        "fence = 9223372036854775807",
        "finished_at = 9223372036854775807",
        "failed_until = 9223372036854775807",
        "failed_until = 9223372036854775807, failure = 'refused'",
        "failed_until = -9223372036854775808, failure = 'refused'",
        "failed_until = extract(epoch FROM now() + interval '1 hour') * 1000, failure = 'refused'",
        "failed_until = extract(epoch FROM now() + interval '1 minute') * 1000, failure = NULL",
    ] {
        let lease = granted(replicas.first(), &name).await;
        let release = replicas.first().release_lease(lease, LeaseEnd::Abandoned);
        release.await.unwrap();
        replicas.psql(&format!("UPDATE usage_proxy.lease SET {poison}"));

        // A purge writes to it, too.
        let purge = StoreWrite::Purge(PurgeScope::default(), PurgeMode::Soft);
        let lease = granted(replicas.second(), &name).await;
        replicas.stores[0].write(vec![purge]).await.unwrap();

        assert!(
            !replicas.second().renew_lease(lease).await.unwrap(),
            "{poison}"
        );
    }
}

async fn a_purge_ends_the_leases_of_its_calls(place: TestPlace) {
    let replicas = Replicas::on(place).await;
    let resource = |number| Resource::InsightsUsage(customer(number));
    let name = |number| lease_name(resource(number)).unwrap();
    let first = granted(replicas.first(), &name(1)).await;
    granted(replicas.first(), &name(2)).await;
    granted(replicas.first(), "another").await;

    let scope = PurgeScope {
        customer_id: Some(customer(1)),
        processed_date: None,
    };
    let purge = StoreWrite::Purge(scope, PurgeMode::Soft);
    replicas.stores[1].write(vec![purge]).await.unwrap();

    assert!(!replicas.first().renew_lease(first).await.unwrap());
    granted(replicas.second(), &name(1)).await;
    let of_other = replicas.second().acquire_lease(wanted(&name(2))).await;
    assert_eq!(of_other.unwrap(), LeaseAttempt::Held);

    let purge = StoreWrite::Purge(PurgeScope::default(), PurgeMode::Soft);
    replicas.stores[1].write(vec![purge]).await.unwrap();
    granted(replicas.second(), &name(2)).await;
    let no_call = replicas.second().acquire_lease(wanted("another")).await;
    assert_eq!(no_call.unwrap(), LeaseAttempt::Held);
}

macro_rules! on_each_place {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::TestPlace::database()).await;
            })+
        }
        mod behind_pgbouncer {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::TestPlace::pooled()).await;
            })+
        }
    };
}

on_each_place! {
    of_many_contenders_one_gets_the_lease,
    an_expired_lease_is_lost_to_the_next_holder,
    a_lease_is_given_back_that_came_too_late_for_its_caller,
    a_result_is_known_to_those_who_have_not_seen_it,
    a_failure_counts_for_all_while_it_lasts,
    what_comes_under_a_lost_lease_is_not_stored,
    a_row_without_sense_blocks_nobody,
    a_purge_ends_the_leases_of_its_calls,
}

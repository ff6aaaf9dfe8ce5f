//! Many customers that are gone at once look like a fault: their data is served until that is
//! confirmed.

use crate::support::prelude::*;

/// `cache.suspect_confirm_after`, by default.
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// The simulator's fleet.
const CUSTOMERS: usize = 25;

const MANY_ABSENT: &str = r#"usage_proxy_upstream_suspect_total{reason="many-absent"}"#;

fn no_relationship() -> Faults {
    refusing(403, "2032")
}

/// A service whose data of all customers is stale, while Partner Center says that the partner has a
/// relationship with none of them.
async fn without_relationships() -> TestApp {
    let app = TestApp::start().await;
    for index in 0..CUSTOMERS {
        app.usage(customer(index)).await;
    }
    app.advance(STALE);
    app.set_faults(no_relationship());
    app
}

#[tokio::test]
async fn a_mass_absence_serves_cached_data_until_it_is_confirmed() {
    let app = without_relationships().await;

    for index in 0..10 {
        let reply = app.usage(customer(index)).await;
        reply.problem(403, "no-relationship");
    }
    for index in 10..CUSTOMERS {
        let reply = app.usage(customer(index)).await;
        assert_eq!(reply.status, 200, "{index}");
        assert_eq!(
            reply.cache_status(),
            "fwd=stale; fwd-status=403; ttl=900; detail=suspect"
        );
    }
    app.advance(QUARTER - SECOND);
    let before = app.usage(customer(10)).await;
    let suspects = app.metric(MANY_ABSENT).await;
    app.advance(SECOND);
    let confirmed = app.usage(customer(10)).await;
    let after = app.usage(customer(10)).await;

    assert_eq!(before.cache_status(), "hit; ttl=1; detail=suspect");
    assert_eq!(suspects, 15.0, "{suspects}");
    confirmed.problem(403, "no-relationship");
    after.problem(403, "no-relationship");
}

#[tokio::test]
async fn customers_that_return_are_served_normally() {
    let app = without_relationships().await;
    for index in 0..CUSTOMERS {
        app.usage(customer(index)).await;
    }

    app.clear_faults();
    app.advance(QUARTER);
    let dropped = app.usage(customer(0)).await;
    let cached = app.usage(customer(10)).await;

    for reply in [dropped, cached] {
        assert_eq!(reply.status, 200);
        assert!(!reply.cache_status().contains("suspect"), "{reply:?}");
    }
}

#[tokio::test]
async fn the_absence_of_a_few_customers_is_accepted_at_once() {
    let app = without_relationships().await;

    for index in 0..10 {
        app.usage(customer(index))
            .await
            .problem(403, "no-relationship");
    }
    app.advance(Duration::from_secs(5 * 60));
    for index in 10..20 {
        app.usage(customer(index))
            .await
            .problem(403, "no-relationship");
    }
}

//! Many customers that are gone at once look like a fault: their data is served until that is
//! confirmed.

use std::time::Duration;

use http::StatusCode;
use usage_proxy::simulator::Faults;

use crate::support::{TestApp, customer};

/// `cache.suspect_confirm_after`, by default.
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// Past `fresh_for + stale_while_revalidate`: the next request asks, and waits.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

/// The stand-in's fleet.
const CUSTOMERS: usize = 25;

const MANY_ABSENT: &str = r#"usage_proxy_upstream_suspect_total{reason="many-absent"}"#;

fn no_relationship() -> Faults {
    Faults {
        status: Some(StatusCode::FORBIDDEN),
        code: Some("2032".into()),
        ..Faults::default()
    }
}

/// A service whose data of all customers is stale, while Partner Center says that the partner has a
/// relationship with none of them.
async fn without_relationships() -> TestApp {
    let app = TestApp::start().await;
    for index in 0..CUSTOMERS {
        app.usage(customer(index)).await;
    }
    app.advance(STALE);
    app.simulator.set_faults(no_relationship());
    app
}

#[tokio::test]
async fn when_many_customers_are_gone_at_once_their_data_is_served_until_that_is_confirmed() {
    let app = without_relationships().await;

    for index in 0..10 {
        let reply = app.usage(customer(index)).await;
        reply.problem(403, "no-relationship");
    }
    for index in 10..CUSTOMERS {
        let reply = app.usage(customer(index)).await;
        assert_eq!(reply.status, 200, "{index}");
        assert_eq!(
            reply.header("cache-status"),
            "usage-proxy; fwd=stale; fwd-status=403; ttl=900; detail=suspect"
        );
    }
    app.advance(QUARTER - Duration::from_secs(1));
    let before = app.usage(customer(10)).await;
    let suspects = app.metric(MANY_ABSENT).await;
    app.advance(Duration::from_secs(1));
    let confirmed = app.usage(customer(10)).await;
    let after = app.usage(customer(10)).await;

    assert_eq!(
        before.header("cache-status"),
        "usage-proxy; hit; ttl=1; detail=suspect"
    );
    assert!((suspects - 15.0).abs() < f64::EPSILON, "{suspects}");
    confirmed.problem(403, "no-relationship");
    after.problem(403, "no-relationship");
}

#[tokio::test]
async fn customers_that_are_back_are_served_as_if_nothing_had_been() {
    let app = without_relationships().await;
    for index in 0..CUSTOMERS {
        app.usage(customer(index)).await;
    }

    app.simulator.set_faults(Faults::default());
    app.advance(QUARTER);
    let dropped = app.usage(customer(0)).await;
    let kept = app.usage(customer(10)).await;

    for reply in [dropped, kept] {
        assert_eq!(reply.status, 200);
        assert!(
            !reply.header("cache-status").contains("suspect"),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn a_few_customers_that_are_gone_are_gone_at_once() {
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

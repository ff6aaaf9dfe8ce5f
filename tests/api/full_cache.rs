//! A full cache: large answers are stored all the same, and `stored` is true.

use crate::support::prelude::*;

/// More than fit into [`TestApp::small`].
const CUSTOMERS: usize = 100;

impl TestApp {
    /// A service whose cache is smaller than the usage of its customers.
    pub(crate) async fn small() -> Self {
        Self::builder()
            .set("cache.max_bytes", "1MiB")
            .set("upstream.retries", "0")
            .simulator(|options| options.customers = CUSTOMERS)
            .start()
            .await
    }

    /// Asks for charts of more customers than fit, so that the cache is full of them, and of no others
    /// that were asked for before.
    pub(crate) async fn fill(&self) {
        for index in 1..CUSTOMERS {
            let chart = format!("/v1/customers/{}/usage/chart.svg", customer(index));
            for path in [format!("{chart}?theme=dark"), chart] {
                assert_eq!(self.get(&path).await.status, 200);
            }
        }
        // Counting the entries has the cache evict at once what it would evict in a moment.
        self.entries().await;
    }
}

fn is_stored(reply: &Reply) -> bool {
    reply.cache_status().contains("; stored;")
}

#[tokio::test]
async fn a_full_cache_stores_the_list_of_customers_and_serves_it_in_an_outage() {
    let app = TestApp::small().await;
    app.fill().await;

    let first = app.get("/v1/customers").await;
    app.entries().await;
    let second = app.get("/v1/customers").await;
    app.set_faults(failing(503));
    app.advance(STALE);
    let in_outage = app.get("/v1/customers").await;

    assert!(is_stored(&first), "{first:?}");
    assert_eq!(
        second.cache_status(),
        HIT,
        "what is called stored is stored"
    );
    assert_eq!(in_outage.status, 200);
    assert!(
        in_outage.cache_status().ends_with("detail=stale-if-error"),
        "{in_outage:?}"
    );
}

#[tokio::test]
async fn an_answer_larger_than_its_share_of_the_cache_is_not_called_stored() {
    let app = TestApp::builder()
        .set("cache.max_bytes", "32KiB")
        .simulator(|options| options.customers = CUSTOMERS)
        .start()
        .await;

    let first = app.get("/v1/customers").await;
    app.get("/v1/customers").await;

    assert_eq!(first.status, 200);
    assert!(!is_stored(&first), "{first:?}");
    assert_eq!(app.calls(SimulatedApi::Customers), 2);
}

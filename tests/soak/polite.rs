//! The caller that behaves: it polls customers steadily, and now and then asks for one more.

use std::{
    fmt,
    time::{Duration, Instant as Started},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::target::known;

/// Its key.
pub(crate) const KEY: &str = "up_dashboard";

/// Customers that it polls, each in turn.
const CUSTOMERS: usize = 50;

/// One poll of so many is for a new customer, so that upstream has to be asked.
const NEW_CUSTOMER_EVERY: usize = 25;

/// Between two polls.
const PAUSE: Duration = Duration::from_millis(10);

/// One poll of so many takes a connection of its own, as a browser does that was just opened.
const NEW_CONNECTION_EVERY: usize = 10;

/// Longer than a dashboard waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A dashboard.
pub(crate) struct Caller {
    api: String,
    keeping: reqwest::Client,
    connecting: reqwest::Client,
    report: Report,
}

/// The results of the caller.
#[derive(Clone, Default)]
pub(crate) struct Report {
    pub(crate) answers: u64,
    pub(crate) failures: Vec<String>,
    took: Vec<Duration>,
}

// === impl Caller ===

impl Caller {
    pub(crate) fn new(api: &str) -> Self {
        Self {
            api: api.to_owned(),
            keeping: client(CUSTOMERS),
            connecting: client(0),
            report: Report::default(),
        }
    }

    /// Asks for each customer once, before the storm.
    pub(crate) async fn warm_up(&mut self) {
        for index in 0..CUSTOMERS {
            self.ask(index, known(index)).await;
        }
        assert_eq!(self.report.failures, [""; 0]);
        self.report = Report::default();
    }

    pub(crate) async fn poll(mut self, until: Instant) -> Report {
        let mut poll = 0;
        while Instant::now() < until {
            let customer = match poll % NEW_CUSTOMER_EVERY {
                // The flood takes them from the other end.
                1 => known(crate::CUSTOMERS - 1 - poll / NEW_CUSTOMER_EVERY),
                _ => known(poll % CUSTOMERS),
            };
            self.ask(poll, customer).await;
            poll += 1;
            tokio::time::sleep(PAUSE).await;
        }
        self.report
    }

    async fn ask(&mut self, poll: usize, customer: Uuid) {
        let customer = customer.to_string();
        let url = format!("{}/v1/customers/{customer}/usage", self.api);
        let client = match poll % NEW_CONNECTION_EVERY {
            0 => &self.connecting,
            _ => &self.keeping,
        };
        let started = Started::now();
        let exchange = async {
            let answer = client.get(url).bearer_auth(KEY).send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        match exchange.await {
            Ok((status, body)) if status == 200 && body.contains(&customer) => {
                self.report.answers += 1;
                self.report.took.push(started.elapsed());
            }
            Ok((status, body)) => self.report.failures.push(format!("{status}: {body}")),
            Err(error) => self.report.failures.push(format!("{error:?}")),
        }
    }
}

fn client(idle_connections: usize) -> reqwest::Client {
    reqwest::Client::builder()
        .pool_max_idle_per_host(idle_connections)
        .no_proxy()
        .timeout(PATIENCE)
        .retry(reqwest::retry::never())
        .build()
        .unwrap()
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        took.sort();
        let share = |share: usize| {
            took.get(took.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        write!(
            f,
            "the caller that behaves: {} answers, {} failures; half within {:.1?}, 99 % within {:.1?}, the slowest {:.1?}",
            self.answers,
            self.failures.len(),
            share(50),
            share(99),
            took.last().copied().unwrap_or_default(),
        )
    }
}

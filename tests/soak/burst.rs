//! A burst of first compressions: many answers that are cached, asked for at once as a browser does.

use tokio::task::JoinSet;

use crate::target::{STRANGERS_KEY, known};

/// Customers of the burst, and pages of the list of customers.
const ANSWERS: usize = 100;

/// What a browser accepts.
const CODINGS: &str = "gzip, deflate, br, zstd";

/// Asks for each customer as it is, so that all are cached; then for all of them compressed, at once,
/// and for as many pages of the list of customers.
pub(crate) async fn run(api: &str) {
    let customers = (0..ANSWERS).map(|index| format!("/v1/customers/{}/usage", known(index)));
    let customers: Vec<_> = customers.collect();
    let pages = (1..=ANSWERS).map(|size| format!("/v1/customers?size={size}"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in &customers {
        ask(client.get(format!("{api}{path}")), "identity").await;
    }
    for paths in [customers, pages.collect()] {
        let requests = paths.iter().map(|path| client.get(format!("{api}{path}")));
        let burst: JoinSet<_> = requests.map(|request| ask(request, CODINGS)).collect();
        burst.join_all().await;
    }
}

async fn ask(request: reqwest::RequestBuilder, codings: &'static str) {
    let request = request.header("accept-encoding", codings);
    let answer = request.bearer_auth(STRANGERS_KEY).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap();
}

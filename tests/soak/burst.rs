//! A burst of first compressions: many answers that are cached, asked for at once as a browser does.

use tokio::task::JoinSet;

use crate::target::{STRANGERS_KEY, known};

/// Customers of the burst.
const CUSTOMERS: usize = 100;

/// Asks for each customer as it is, so that all are cached; then for all of them at once in each
/// coding.
pub(crate) async fn run(api: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let urls = (0..CUSTOMERS).map(|index| format!("{api}/v1/customers/{}/usage", known(index)));
    let urls: Vec<_> = urls.collect();
    for url in &urls {
        ask(client.get(url), "identity").await;
    }
    for coding in ["br", "gzip", "zstd"] {
        let requests = urls.iter().map(|url| client.get(url));
        let burst: JoinSet<_> = requests.map(|request| ask(request, coding)).collect();
        burst.join_all().await;
    }
}

async fn ask(request: reqwest::RequestBuilder, coding: &'static str) {
    let request = request.header("accept-encoding", coding);
    let answer = request.bearer_auth(STRANGERS_KEY).send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    assert_eq!(status, 200, "{body}");
}

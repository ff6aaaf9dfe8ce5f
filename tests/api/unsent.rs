//! Answers that clients do not read: their limits, and the answers to other clients meanwhile.

use reqwest::Response;

use crate::support::prelude::*;

const LIST: &str = "/v1/customers";

/// Bytes that may wait for one caller, and in all.
const OF_CALLER: usize = 16 * 1024 * 1024;
const OF_ALL: usize = 4 * OF_CALLER;

/// Those who do not read, and one who does.
const STALLED: [&str; 5] = [
    "stalled-1",
    "stalled-2",
    "stalled-3",
    "stalled-4",
    "stalled-5",
];
const POLITE: &str = "polite";

/// With a list of customers of several megabytes.
fn with_many_customers() -> Builder {
    let callers: Vec<_> = STALLED.into_iter().chain([POLITE]).collect();
    let callers: Vec<_> = callers.into_iter().map(TestCaller::named).collect();
    TestApp::builder()
        .callers(&callers)
        .set("server.http2_cleartext", "true")
        // However long the test takes, nothing is given up before it says so.
        .set("server.stall_timeout", "1h")
        .set("server.request_timeout", "1h")
        .simulator(|options| options.customers = 10_000)
}

/// Asks for the list over one connection, so often, and reads no more of each answer than its head.
async fn ask_without_reading(app: &TestApp, caller: &str, times: usize) -> Vec<Response> {
    let client = reqwest::Client::builder()
        .no_proxy()
        // As large as the budgets are reckoned by.
        .no_gzip()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(1_024)
        .build()
        .unwrap();
    let mut answers = Vec::new();
    for _ in 0..times {
        let request = client.get(format!("http://{}{LIST}", app.api));
        let request = request.header("x-api-key", key_of(caller));
        answers.push(request.send().await.unwrap());
    }
    answers
}

async fn get(app: &TestApp, caller: &str, path: &str) -> Reply {
    app.get_with(path, &[("x-api-key", &key_of(caller))]).await
}

/// Returns the number of answers of this size that a budget lets wait.
fn most(budget: usize, list: &Reply) -> usize {
    budget.div_ceil(list.body.len() + 16 * 1024)
}

#[tokio::test]
async fn a_caller_that_does_not_read_gets_429_and_no_other_does() {
    let app = with_many_customers().start().await;
    let list = get(&app, POLITE, LIST).await;
    let most = most(OF_CALLER, &list);

    let unread = ask_without_reading(&app, STALLED[0], most + 1).await;
    let refused = get(&app, STALLED[0], LIST).await;
    let usage = get(&app, STALLED[0], &format!("{LIST}/{DOCUMENTED}/usage")).await;
    let others = get(&app, POLITE, LIST).await;

    let statuses: Vec<_> = unread
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    assert_eq!(statuses[..most], vec![200; most]);
    assert_eq!(statuses[most], 429);
    refused.problem(429, "unread-answers");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(usage.status, 200, "what is small is answered all the same");
    assert_eq!(others.status, 200);

    drop(unread);
    let answered = async || get(&app, STALLED[0], LIST).await.status == 200;
    wait_until("the caller is answered again", answered).await;
}

#[tokio::test]
async fn large_answers_get_503_when_all_callers_leave_too_much_unread() {
    let app = with_many_customers().start().await;
    let list = get(&app, POLITE, LIST).await;
    let (of_caller, mut left) = (most(OF_CALLER, &list), most(OF_ALL, &list));
    let mut unread = Vec::new();
    for caller in STALLED {
        let times = of_caller.min(left);
        left -= times;
        unread.extend(ask_without_reading(&app, caller, times).await);
    }

    let refused = get(&app, POLITE, LIST).await;
    let usage = get(&app, POLITE, &format!("{LIST}/{DOCUMENTED}/usage")).await;

    assert_eq!(left, 0);
    assert!(unread.iter().all(|answer| answer.status() == 200));
    refused.problem(503, "backlogged");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(usage.status, 200, "what is small is answered all the same");
}

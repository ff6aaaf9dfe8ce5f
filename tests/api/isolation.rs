//! Two callers that ask for the same customers. Changes of a cache entry never show a caller data
//! that it may not read.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use jiff::civil::{Date, date};

use crate::support::prelude::*;

const PROCESSED: Date = date(2026, 11, 19);
const TASKS_OF_EACH: usize = 12;
const REQUESTS_OF_EACH: usize = 240;

/// A customer that both callers ask for, and the callers that may read it.
struct Subject {
    customer: Uuid,
    readers: &'static [&'static str],
    /// A number that is in this customer's usage and in no other; `None` if the customer is unknown.
    seats: Option<u64>,
}

/// A description of the data that an answer leaked.
type Leak = String;

fn subjects() -> Vec<Subject> {
    const BOTH: &[&str] = &["left", "right"];

    let readers = [&BOTH[..1], &BOTH[1..], BOTH];
    let known = (0..6).map(|index| Subject {
        customer: customer(index),
        readers: readers[index % 3],
        seats: Some(7_100_001 + index as u64),
    });
    let unknown = (0..3).map(|index| Subject {
        customer: Uuid::from_u128(index as u128 + 1),
        readers: readers[index],
        seats: None,
    });
    known.chain(unknown).collect()
}

async fn app(subjects: &[Subject]) -> TestApp {
    let callers = ["left", "right"].map(|name| {
        let its = subjects.iter().filter(|one| one.readers.contains(&name));
        let its: Vec<_> = its.map(|one| one.customer).collect();
        TestCaller::named(name)
            .with_customers(&its)
            .with_scopes(&["usage:read", "cache:refresh"])
    });
    let app = TestApp::builder()
        .callers(&callers)
        .set("cache.min_refresh_interval", "0s")
        .start()
        .await;
    for subject in subjects {
        if let Some(qualified) = subject.seats {
            app.set_rows(subject.customer, seats(qualified, PROCESSED));
        }
    }
    app
}

/// One of the many ways to ask, different from step to step.
async fn ask(app: &TestApp, name: &str, subject: &Subject, step: usize) -> Reply {
    let path = format!("/v1/customers/{}", subject.customer);
    let key = key_of(name);
    let with = |header: (&'static str, &'static str)| {
        [("x-api-key", key.clone()), (header.0, header.1.into())]
    };
    let (path, headers) = match step % 5 {
        0 => (format!("{path}/usage"), with(("accept", "text/csv"))),
        1 => (
            format!("{path}/usage?processedDate={PROCESSED}"),
            with(("accept", "*/*")),
        ),
        2 => (format!("{path}/usage"), with(("cache-control", "no-cache"))),
        3 => (
            format!("{path}/analytics/licenses/usage"),
            with(("accept", "*/*")),
        ),
        _ => (format!("{path}/usage"), with(("accept", "*/*"))),
    };
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    app.get_with(&path, &headers).await
}

/// Judges an answer by who asked and for whom.
fn judge(name: &str, subject: &Subject, all: &[Subject], reply: &Reply) -> Result<(), Leak> {
    let body = String::from_utf8_lossy(&reply.body);
    let expected = match (subject.readers.contains(&name), subject.seats) {
        (false, _) => 403,
        (true, Some(_)) => 200,
        (true, None) => 404,
    };
    let seen = all.iter().filter_map(|one| one.seats);
    let seen: Vec<_> = seen
        .filter(|seats| body.contains(&seats.to_string()))
        .collect();
    let may_tell: Vec<_> = subject
        .seats
        .filter(|_| expected == 200)
        .into_iter()
        .collect();
    let consulted = reply.cache_status() != "detail=not-consulted";
    if reply.status == expected && seen == may_tell && consulted == (expected != 403) {
        return Ok(());
    }
    Err(format!(
        "{name} asked for {}: {} {:?} {body}",
        subject.customer, reply.status, reply.headers
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_goes_to_the_caller_that_requested_it() {
    let subjects = Arc::new(subjects());
    let app = Arc::new(app(&subjects).await);
    let calls = Arc::new(Mutex::new(HashSet::new()));

    let hammers = (0..2 * TASKS_OF_EACH).map(|task| {
        let (app, subjects, calls) = (app.clone(), subjects.clone(), calls.clone());
        tokio::spawn(async move {
            let name = ["left", "right"][task % 2];
            for step in 0..REQUESTS_OF_EACH {
                // Those next to each other ask for the same at about the same time.
                let subject = &subjects[(step + task / 8) % subjects.len()];
                if task == 0 && step % 9 == 0 {
                    let hard = ["true", "false"][step % 2];
                    app.admin_post(&format!("/cache/purge?hard={hard}")).await;
                }
                let reply = ask(&app, name, subject, step / subjects.len() + task).await;
                judge(name, subject, &subjects, &reply)?;
                let id = reply.header("ms-requestid").to_owned();
                if !id.is_empty() && !calls.lock().unwrap().insert(id.clone()) {
                    return Err(format!("two answers bear the call {id}"));
                }
            }
            Ok(())
        })
    });
    for hammer in hammers.collect::<Vec<_>>() {
        hammer.await.unwrap().unwrap();
    }

    for result in ["hit", "miss", "negative", "bypass"] {
        let sample = format!("usage_proxy_cache_requests_total{{result=\"{result}\"}}");
        assert!(app.metric(&sample).await > 0.0, "no {result} was met");
    }
    assert!(app.metric("usage_proxy_collapsed_total").await > 0.0);
    assert!(app.metric("usage_proxy_authorization_denied_total").await > 0.0);
}

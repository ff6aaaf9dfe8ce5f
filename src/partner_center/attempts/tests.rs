use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    domain::{LicenseUsage, ProcessedDate, Resource},
    jitter::Jitter,
    partner_center::test_support::{
        CUSTOMER, TestCredentials, TestReply, UpstreamFixture, ask, ask_commercial, ask_insights,
        customer, ok, usage,
    },
    service::source::{
        AnswerContent, CallTrace, SourceAnswer, SourceCall, SourceErrorKind, UsageSource,
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// What would sleep on a clock that nobody moves fails instead of hanging.
async fn soon<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(10 * SECOND, call).await.unwrap()
}

async fn fixture(replies: impl IntoIterator<Item = TestReply>) -> UpstreamFixture {
    let fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
    fixture.api.replies(replies);
    fixture
}

fn throttled(retry_after: &str) -> TestReply {
    let body = json!({ "statusCode": 429, "message": "Rate limit is exceeded." });
    let headers = [("retry-after", retry_after)];
    TestReply::new(429, &headers, body.to_string().as_bytes())
}

#[tokio::test]
async fn every_request_says_who_asks_and_how_to_trace_it() {
    let fixture = fixture([ok()]).await;
    let correlation_id = uuid::Uuid::new_v4();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    let partner_center = fixture.start();

    let fetched = partner_center.fetch(SourceCall {
        resource: Resource::InsightsUsage(customer()),
        trace: CallTrace {
            correlation_id: Some(correlation_id),
            traceparent: Some(traceparent.parse().unwrap()),
            span: None,
        },
        requested_at: partner_center.clock.now(),
    });
    let ids = fetched.await.unwrap().call_ids;

    let request = &fixture.api.requests()[0];
    assert_eq!(
        request.target,
        format!("/v1/customers/{CUSTOMER}/analytics/licenses/usage")
    );
    for (name, value) in [
        ("authorization", "Bearer access-1"),
        ("accept", "application/json"),
        ("x-locale", "en-US"),
        ("ms-contract-version", "v1"),
        ("ms-partnercenter-application", "tests"),
        (
            "ms-partnercenter-client",
            concat!("usage-proxy/", env!("CARGO_PKG_VERSION")),
        ),
        ("validatemfa", ""),
        ("traceparent", traceparent),
        ("ms-correlationid", &correlation_id.to_string()),
        ("ms-requestid", &ids.request_id.to_string()),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert_eq!(ids.correlation_id, correlation_id);
}

fn usage_of(fetched: &SourceAnswer) -> (&LicenseUsage, Option<&Bytes>) {
    match &fetched.content {
        AnswerContent::Usage {
            usage: snapshot,
            native,
        } => (snapshot, native.as_ref()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_body_is_kept_byte_for_byte() {
    let body = format!("\u{feff}{}", usage(1));
    let fixture = fixture([TestReply::gzip(body.as_bytes())]).await;

    let fetched = ask_insights(&fixture.start()).await.unwrap();

    let (_, native) = usage_of(&fetched);
    assert_eq!(native.map(|native| &**native), Some(body.as_bytes()));
}

#[tokio::test]
async fn a_passing_fault_is_retried_under_the_same_request_id() {
    let fixture = fixture([TestReply::status(500), TestReply::broken_off(), ok()]).await;

    let fetched = ask_insights(&fixture.start()).await.unwrap();

    let requests = fixture.api.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(
            request.header("ms-requestid"),
            fetched.call_ids.request_id.to_string()
        );
    }
    let retries = |reason| fixture.metric("upstream_retries_total", &[("reason", reason)]);
    assert_eq!((retries("status"), retries("connection")), (1.0, 1.0));
}

#[tokio::test]
async fn retries_come_to_an_end() {
    let fixture = fixture([502, 503, 504, 408, 200].map(TestReply::status)).await;

    let error = ask_insights(&fixture.start()).await.unwrap_err();

    assert_eq!(
        error.kind,
        SourceErrorKind::Unavailable { retry_after: None }
    );
    assert_eq!(error.upstream_error.unwrap().status, 408);
    assert_eq!(fixture.api.requests().len(), 4);
}

#[tokio::test]
async fn what_another_attempt_would_not_mend_is_sent_once() {
    for (status, kind) in [
        (400, SourceErrorKind::Rejected),
        (403, SourceErrorKind::Rejected),
        (404, SourceErrorKind::Rejected),
        (302, SourceErrorKind::Rejected),
        (501, SourceErrorKind::Unavailable { retry_after: None }),
        (204, SourceErrorKind::Malformed),
    ] {
        let fixture = fixture([TestReply::new(status, &[("location", "/")], b""), ok()]).await;

        let error = ask_insights(&fixture.start()).await.unwrap_err();

        assert_eq!(error.kind, kind, "{status}");
        assert_eq!(fixture.api.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_pause_that_does_not_fit_the_deadline_is_not_begun() {
    let headers = [("retry-after", "26")];
    let fixture = fixture([TestReply::new(503, &headers, b""), ok()]).await;

    let error = ask_insights(&fixture.start()).await.unwrap_err();

    let retry_after = Some(26 * SECOND);
    assert_eq!(error.kind, SourceErrorKind::Unavailable { retry_after });
    assert_eq!(fixture.api.requests().len(), 1);
}

#[tokio::test]
async fn an_attempt_ends_in_time_and_the_last_one_at_the_deadline() {
    let never = Notify::new().into();
    let silence = [(); 3].map(|()| ok().held(&never));
    let mut fixture = fixture(silence).await;
    fixture.jitter = Jitter::Fixed(0.5);
    let partner_center = fixture.start();

    let (outcome, ()) = tokio::join!(ask_insights(&partner_center), async {
        fixture.api.requested(1).await;
        fixture.clock.advance_when_sleeping(10 * SECOND).await;
        fixture.clock.advance_when_sleeping(SECOND / 10).await;
        fixture.api.requested(2).await;
        fixture.clock.advance_when_sleeping(10 * SECOND).await;
        fixture.clock.advance_when_sleeping(SECOND / 5).await;
        fixture.api.requested(3).await;
        fixture.clock.advance_when_sleeping(5 * SECOND).await;
    });

    assert_eq!(outcome.unwrap_err().kind, SourceErrorKind::TimedOut);
    assert_eq!(fixture.api.requests().len(), 3);
}

#[tokio::test]
async fn a_throttled_call_waits_when_that_is_short_and_stops_others_of_its_kind() {
    let fixture = fixture([throttled("2"), ok(), ok(), ok()]).await;
    let partner_center = fixture.start();

    let (first, second, ()) = tokio::join!(
        ask_insights(&partner_center),
        async {
            fixture.clock.wait_for_sleepers_until(1, 2 * SECOND).await;
            ask_insights(&partner_center).await
        },
        async {
            fixture.clock.wait_for_sleepers_until(2, 2 * SECOND).await;
            assert_eq!(fixture.api.requests().len(), 1);
            fixture.clock.advance(2 * SECOND);
        }
    );

    assert!(first.is_ok() && second.is_ok());
    assert_eq!(fixture.api.requests().len(), 3);
}

#[tokio::test]
async fn a_longer_pause_fails_at_once_though_it_fits_the_deadline() {
    let asked = Some(3 * SECOND);
    let busy = TestReply::new(503, &[("retry-after", "3")], b"");
    for (reply, kind) in [
        (
            throttled("3"),
            SourceErrorKind::Throttled {
                retry_after: 3 * SECOND,
            },
        ),
        (busy, SourceErrorKind::Unavailable { retry_after: asked }),
    ] {
        let fixture = fixture([reply, ok()]).await;

        let error = soon(ask_insights(&fixture.start())).await.unwrap_err();

        assert_eq!(error.kind, kind);
        assert_eq!(fixture.api.requests().len(), 1);
    }
}

#[tokio::test]
async fn no_call_sleeps_while_its_customer_is_silenced_for_long() {
    let fixture = fixture([throttled("20"), ok()]).await;
    let partner_center = fixture.start();
    soon(ask_insights(&partner_center)).await.unwrap_err();

    let spared = soon(ask_insights(&partner_center)).await.unwrap_err();

    let retry_after = 20 * SECOND;
    assert_eq!(spared.kind, SourceErrorKind::Throttled { retry_after });
    assert_eq!(fixture.api.requests().len(), 1);
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_fails_at_once_and_for_one_kind_of_call_only() {
    let fixture = fixture([throttled("57"), ok()]).await;
    let partner_center = fixture.start();

    let told = ask_insights(&partner_center).await.unwrap_err();
    fixture.clock.advance(7 * SECOND);
    let spared = ask_insights(&partner_center).await.unwrap_err();
    let other_kind = ask_commercial(&partner_center).await;

    let throttled = |seconds: u32| SourceErrorKind::Throttled {
        retry_after: seconds * SECOND,
    };
    assert_eq!((told.kind, spared.kind), (throttled(57), throttled(50)));
    assert!(told.upstream_error.is_some() && told.call_ids.is_some());
    assert_eq!(spared.call_ids, None, "nothing was sent");
    assert!(other_kind.is_ok());
    assert_eq!(fixture.api.requests().len(), 2);
    let until = fixture.metric("upstream_throttled_until_timestamp_seconds", &[]);
    assert_eq!(until, 1_773_576_000.0 + 57.0);
}

#[tokio::test]
async fn what_is_too_large_unpacked_is_refused() {
    let bomb = vec![b' '; 1024 * 1024];
    let fixture = fixture([TestReply::gzip(&bomb), TestReply::gzip(b"{}")]).await;

    let error = ask_insights(&fixture.start()).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Malformed);
    assert!(error.detail.contains("max_body"), "{}", error.detail);
    assert_eq!(fixture.api.requests().len(), 1);
}

#[tokio::test]
async fn what_is_not_the_schema_is_not_asked_for_again() {
    let not_gzip = TestReply::new(200, &[("content-encoding", "gzip")], b"not gzip");
    for reply in [
        not_gzip,
        TestReply::new(200, &[], b"<html>Sign in</html>"),
        TestReply::new(200, &[], b"{\"items\":["),
    ] {
        let fixture = fixture([reply, ok()]).await;

        let error = ask_insights(&fixture.start()).await.unwrap_err();

        assert_eq!(error.kind, SourceErrorKind::Malformed, "{}", error.detail);
        assert_eq!(fixture.api.requests().len(), 1);
    }
}

#[tokio::test]
async fn all_pages_are_one_answer() {
    let headers = json!([{ "key": "MS-ContinuationToken", "value": "abc" },
                         { "key": "Authorization", "value": "Bearer theirs" }]);
    let mut first = usage(1);
    first["links"] = json!({ "next": { "uri": "?skip=1", "method": "GET", "headers": headers } });
    let mut second = usage(1);
    second["items"][0]["productName"] = "B".into();
    let fixture = fixture([first, second].map(|page| TestReply::json(200, &page))).await;
    let date = ProcessedDate::parse("2017-03-09").unwrap();

    let fetched = ask(&fixture.start(), Resource::dated_usage(customer(), date))
        .await
        .unwrap();

    let (snapshot, native) = usage_of(&fetched);
    assert_eq!(snapshot.rows().len(), 2);
    assert_eq!(native, None);
    let requests = fixture.api.requests();
    assert!(
        requests[0]
            .target
            .ends_with("&processedDateTime=2017-03-09")
    );
    assert_eq!(
        requests[1].target,
        "/v1/analytics/commercial/usage/license/?skip=1"
    );
    assert_eq!(requests[1].header("ms-continuationtoken"), "abc");
    assert_eq!(requests[1].header("authorization"), "Bearer access-1");
    let id = |at: usize, name| requests[at].header(name).to_owned();
    assert_eq!(id(0, "ms-correlationid"), id(1, "ms-correlationid"));
    assert_ne!(id(0, "ms-requestid"), id(1, "ms-requestid"));
    assert_eq!(
        id(0, "ms-requestid"),
        fetched.call_ids.request_id.to_string()
    );
}

#[tokio::test]
async fn a_page_that_repeats_a_row_of_another_fails_the_answer() {
    let mut first = usage(1);
    first["nextLink"] = "?skip=1".into();
    let fixture = fixture([TestReply::json(200, &first), ok()]).await;

    let error = ask_commercial(&fixture.start()).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Malformed);
    assert!(error.detail.contains("repeats a row"), "{error}");
}

#[tokio::test]
async fn a_link_to_another_host_is_never_followed() {
    let mut first = usage(1);
    let fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
    let path = "/v1/analytics/commercial/usage/license/";
    first["nextLink"] = format!("{}{path}", fixture.login.url).into();
    fixture.api.replies([TestReply::json(200, &first)]);

    let error = ask_commercial(&fixture.start()).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Malformed);
    assert_eq!(fixture.login.requests().len(), 0);
}

#[tokio::test]
async fn a_page_that_fails_fails_the_answer() {
    let mut first = usage(1);
    first["@odata.nextLink"] = "?skip=1".into();
    let fixture = fixture([TestReply::json(200, &first), TestReply::status(400)]).await;

    let error = ask_commercial(&fixture.start()).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Rejected);
}

#[tokio::test]
async fn pages_that_are_too_large_together_are_no_answer() {
    let mut fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
    let mut page = usage(1);
    page["nextLink"] = "?skip=1".into();
    fixture.config.max_body = page.to_string().len() * 3 / 2;
    fixture
        .api
        .replies([&page, &page].map(|page| TestReply::json(200, page)));
    let partner_center = fixture.start();

    let error = ask_commercial(&partner_center).await.unwrap_err();

    assert_eq!(error.kind, SourceErrorKind::Malformed);
    assert!(error.detail.contains("all pages together"), "{error}");
}

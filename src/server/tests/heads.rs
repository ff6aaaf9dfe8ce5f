use super::*;

/// Comes after the request under test, and must not be answered.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn ambiguous_requests_are_rejected_and_the_connection_is_closed() {
    for (request, kind) in [
        ("GET /a HTTP/1.1\r\n\r\n", "missing-host"),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "repeated-host",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "repeated-host",
        ),
        ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", "invalid-host"),
        (
            "GET http://evil/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "foreign-target",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "request-body",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
            "request-body",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "request-body",
        ),
        (
            "HEAD /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "",
        ),
    ] {
        let server = ListenerFixture::start().await;

        let answer = server.send_raw(format!("{request}{SMUGGLED}")).await;

        assert_eq!(statuses(&answer), [400], "{request:?}: {answer}");
        assert!(
            answer.contains(&format!("urn:usage-proxy:problem:{kind}")) || kind.is_empty(),
            "{request:?}: {answer}"
        );
        assert!(answer.contains("content-type: application/problem+json\r\n"));
        assert!(answer.contains("x-request-id: "), "{answer}");
        assert!(answer.contains("detail=not-consulted"), "{answer}");
        let withheld = request.starts_with("HEAD");
        assert_eq!(answer.contains("\"correlationId\":"), !withheld, "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(server.requests(), 0, "{request:?}");
        server.wait_for_close_reason("bad-request").await;
    }
}

#[tokio::test]
async fn invalid_http_is_rejected_and_nothing_after_it_is_a_request() {
    for (request, status) in [
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            Some(400),
        ),
        (
            "GET /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Some(400),
        ),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
            Some(400),
        ),
        ("GET /a\r\n\r\n", Some(400)),
        ("\x16\x03\x01\x02", Some(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ] {
        let server = ListenerFixture::start().await;

        let answer = server.send_raw(format!("{request}{SMUGGLED}")).await;

        let expected: Vec<u16> = status.into_iter().collect();
        assert_eq!(statuses(&answer), expected, "{request:?}: {answer}");
        assert_eq!(server.requests(), 0, "{request:?}");
        server.wait_for_close_reason("bad-request").await;
    }
}

#[tokio::test]
async fn a_rejection_follows_earlier_responses_and_has_its_own_request_id() {
    let server = ListenerFixture::start().await;

    let answers = server
        .send_raw(format!(
            "{GET}{GET}GET /bad HTTP/1.1\r\nX-Request-Id: id-7\r\nHost: x\r\nHost: y\r\n\r\n{SMUGGLED}"
        ))
        .await;

    assert_eq!(statuses(&answers), [200, 200, 400], "{answers}");
    assert!(answers.contains("x-request-id: id-7\r\n"), "{answers}");
    assert!(answers.contains("\"instance\":\"/bad\""), "{answers}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_rejected_client_that_keeps_sending_still_receives_the_problem() {
    let server = ListenerFixture::start().await;
    let body = "x".repeat(200_000);

    let answer = server
        .send_raw(format!(
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{body}"
        ))
        .await;

    assert_eq!(statuses(&answer), [400], "{answer}");
}

#[tokio::test]
async fn nothing_after_a_body_is_a_request() {
    let server = ListenerFixture::start().await;
    let body = SMUGGLED.len();

    for framing in [
        format!("Content-Length: {body}\r\n\r\n{SMUGGLED}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{body:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        format!("Content-Length: 1\r\n\r\n{SMUGGLED}"),
        "Content-Length: 0\r\n\r\n".to_owned(),
    ] {
        let answer = server
            .send_raw(format!(
                "POST /a HTTP/1.1\r\nHost: x\r\n{framing}{SMUGGLED}"
            ))
            .await;

        assert_eq!(statuses(&answer), [200], "{framing:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn heads_are_limited_in_size_and_fields() {
    let server = ListenerFixture::start().await;
    let fields = |count: usize| {
        let fields: String = (1..count).map(|n| format!("a{n}: b\r\n")).collect();
        format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    };

    let target = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    let line = |bytes| format!("GET {} HTTP/1.1\r\nHost: x\r\n", target(bytes));
    let heavy = |bytes| format!("GET /a HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "a".repeat(bytes));

    for most in [
        fields(63).replace("\r\n\r\n", "\r\n"),
        line(8 * 1024),
        // Names and values come to 16 KiB with those of Host and Connection.
        heavy(16 * 1024 - "HostxAConnectionclose".len()),
    ] {
        let answer = server
            .send_raw(format!("{most}Connection: close\r\n\r\n"))
            .await;

        assert_eq!(statuses(&answer), [200], "{answer}");
    }
    for (head, status) in [
        (fields(65), 431),
        (line(8 * 1024 + 1) + "\r\n", 414),
        (heavy(16 * 1024) + "\r\n", 431),
    ] {
        let answer = server.send_raw(head).await;

        assert_eq!(statuses(&answer), [status], "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    for (head, status) in [
        (fields(5_000), 431),
        (heavy(100_000) + "\r\n", 431),
        (line(100_000) + "\r\n", 414),
    ] {
        let answer = server.send_raw(head).await;

        // hyper's own, by which of its limits is passed first.
        assert!(
            [[431], [status]].contains(&[statuses(&answer)[0]]),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn heads_may_be_split_or_pipelined() {
    let server = ListenerFixture::start().await;
    let requests = format!(
        "{}{}\r\n{}",
        GET.replace("/path", "/one"),
        GET.replace("/path", "/two"),
        GET.replace("/path", "/three")
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    );

    for size in [1, 7, 50, requests.len()] {
        let mut client = server.connect().await;
        client.stream.set_nodelay(true).unwrap();
        for piece in requests.as_bytes().chunks(size) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answers = client.read_to_end().await;

        assert_eq!(statuses(&answers), [200, 200, 200], "{size}: {answers}");
        let places = ["ok /one", "ok /two", "ok /three"].map(|ok| answers.find(ok).unwrap());
        assert!(places.is_sorted(), "{answers}");
    }
}

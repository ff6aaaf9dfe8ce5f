use super::*;

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_partial_head_is_closed_without_a_response() {
    let server = ListenerFixture::start_with(|config| config.limits.header_timeout = SHORT).await;

    let answer = server.send_raw("GET /path HTTP/1.1\r\nHo").await;

    assert_eq!(answer, "");
    assert_eq!(server.requests(), 0);
    server.wait_for_close_reason("header-timeout").await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_no_more_time() {
    let server = ListenerFixture::start_with(|config| config.limits.header_timeout = SHORT).await;
    let client = server.connect().await;
    let (mut answers, mut requests) = client.stream.into_split();
    let dribble = async {
        requests
            .write_all(b"GET /path HTTP/1.1\r\nA: ")
            .await
            .unwrap();
        // It ends when the server has had enough.
        while requests.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };

    let mut answer = String::new();
    let both = async { tokio::join!(answers.read_to_string(&mut answer), dribble) };
    let (_end, ()) = tokio::time::timeout(TEST_TIMEOUT, both)
        .await
        .expect("it is closed");

    assert_eq!(answer, "");
}

#[tokio::test]
async fn a_later_head_has_as_much_time_as_the_first() {
    let server = ListenerFixture::start_with(|config| config.limits.header_timeout = SHORT).await;
    let mut client = server.connect().await;
    client.send(GET).await;
    client.receive("ok /path").await;

    client.send("GET /path").await;
    let answer = client.read_to_end().await;

    assert_eq!(answer, "");
    server.wait_for_close_reason("header-timeout").await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_response() {
    let server = ListenerFixture::start_with(|config| config.limits.header_timeout = SHORT).await;

    let answer = server.send_raw("").await;

    assert_eq!(answer, "");
    server.wait_for_close_reason("header-timeout").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = ListenerFixture::start_with(|config| config.limits.idle_timeout = SHORT).await;

    let answer = server.send_raw(GET).await;

    assert_eq!(statuses(&answer), [200], "{answer}");
    server.wait_for_close_reason("idle-timeout").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    let server = ListenerFixture::start_with(|config| config.limits.request_timeout = SHORT).await;
    let mut client = server.connect().await;

    client.send(GET.replace("/path", "/large")).await;

    // Nothing is read: the answer is larger than any socket's buffers.
    server.wait_for_close_reason("request-timeout").await;
    assert_eq!(
        server.sample("usage_proxy_connections{state=\"active\"}"),
        0.0
    );
    drop(client);
}

#[tokio::test]
async fn a_stalled_client_is_disconnected_before_the_request_timeout() {
    let server = ListenerFixture::start_with(|config| config.limits.stall_timeout = SHORT).await;
    let mut client = server.connect().await;

    client.send(GET.replace("/path", "/large")).await;

    server.wait_for_close_reason("stall-timeout").await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_reads_occasionally_is_not_stalled() {
    let server =
        ListenerFixture::start_with(|config| config.limits.stall_timeout = Duration::from_secs(2))
            .await;
    let mut client = server.connect().await;
    client.send(GET.replace("/path", "/large")).await;

    let mut some = vec![0; 1 << 20];
    for _ in 0..8 {
        client.stream.read_exact(&mut some).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let rest = client.receive_bytes((64 << 20) - (8 << 20)).await;

    assert!(rest.iter().all(|byte| *byte == b'x'));
    assert_eq!(server.sample(&closed("stall-timeout")), 0.0);
}

#[tokio::test]
async fn an_idle_connection_without_buffers_is_served() {
    let server = ListenerFixture::start_with(|config| {
        config.limits.release_buffers_after = Duration::from_millis(1)
    })
    .await;
    let rest = || tokio::time::sleep(SHORT);
    let mut client = server.connect().await;

    client.send(GET).await;
    client.receive("ok /path").await;
    rest().await;
    client.send(GET).await;
    client.receive("ok /path").await;
    rest().await;
    client.send("GET /half HTTP/1.1\r\nHo").await;
    rest().await;
    client.send("st: x\r\n\r\n").await;
    client.receive("ok /half").await;
    rest().await;
    client.send("GET /bad HTTP/1.1\r\nHost : x\r\n\r\n").await;
    let refused = client.read_to_end().await;

    assert_eq!(statuses(&refused), [400], "{refused}");
    server.wait_for_close_reason("bad-request").await;
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_partial_head_after_a_request_is_not_lost() {
    for validation in [RequestValidation::Strict, RequestValidation::Lenient] {
        let server = ListenerFixture::start_with(|config| {
            config.validation = validation;
            config.limits.release_buffers_after = Duration::from_millis(1);
        })
        .await;
        let mut client = server.connect().await;

        client.send(format!("{GET}GET /half HTTP/1.1\r\nHo")).await;
        client.receive("ok /path").await;
        tokio::time::sleep(SHORT).await;
        client.send("st: x\r\n\r\n").await;

        client.receive("ok /half").await;
    }
}

#[tokio::test]
async fn an_idle_connection_without_buffers_is_closed_normally() {
    let server = ListenerFixture::start_with(|config| {
        config.limits.release_buffers_after = Duration::from_millis(1);
        config.limits.idle_timeout = 4 * SHORT;
    })
    .await;
    let mut leaving = server.connect().await;
    leaving.send(GET).await;
    leaving.receive("ok /path").await;
    tokio::time::sleep(SHORT).await;
    drop(leaving);
    server.wait_for(&closed("client"), 1.0).await;

    let answer = server.send_raw(GET).await;

    assert_eq!(statuses(&answer), [200], "{answer}");
    server.wait_for(&closed("idle-timeout"), 1.0).await;
}

#[tokio::test]
async fn a_slow_client_within_the_timeout_receives_the_whole_response() {
    let server = ListenerFixture::start_with(|config| {
        config.limits.header_timeout = SHORT;
        config.limits.idle_timeout = SHORT;
    })
    .await;
    let mut client = server.connect().await;
    client.send(GET.replace("/path", "/large")).await;
    tokio::time::sleep(3 * SHORT).await;

    let answer = client.read_to_end().await;

    assert!(answer.len() > 64 << 20, "{}", answer.len());
    server.wait_for_close_reason("idle-timeout").await;
}

#[tokio::test]
async fn a_request_without_a_response_is_aborted() {
    let server = ListenerFixture::start_with(|config| config.limits.request_timeout = SHORT).await;

    let answer = server.send_raw(GET.replace("/path", "/never")).await;

    assert_eq!(answer, "");
    server.wait_for_close_reason("request-timeout").await;
}

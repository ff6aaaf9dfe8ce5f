use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A client that begins to speak HTTP/2 without having been asked.
fn prior_knowledge_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap()
}

fn url(server: &ListenerFixture) -> String {
    format!("http://{}/path", server.address)
}

/// SETTINGS of a client that takes this many bytes of each answer until it says more.
fn settings_with_window(bytes: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 4], &bytes.to_be_bytes()[..]].concat())
}

/// WINDOW_UPDATE of this stream.
fn window_update(stream: u32) -> Vec<u8> {
    frame(8, 0, stream, &1_000_u32.to_be_bytes())
}

/// HEADERS of a GET of `/` on this stream, which it ends.
fn headers(stream: u32) -> Vec<u8> {
    // :method GET, :scheme http, :path /, :authority x
    let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
    frame(1, 0x5, stream, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

impl RawClient {
    /// Waits until these bytes have come.
    async fn receive_frame(&mut self, frame: &[u8]) {
        let reading = async {
            while !self
                .received
                .windows(frame.len())
                .any(|bytes| bytes == frame)
            {
                let read = self.stream.read_buf(&mut self.received).await.unwrap();
                assert_ne!(read, 0, "closed after {:?}", self.received);
            }
        };
        let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;
        read.unwrap_or_else(|_| panic!("{frame:?} does not come, but {:?}", self.received));
        self.received.clear();
    }
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_only_where_configured() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let closed_to_it = ListenerFixture::start().await;

    let answer = prior_knowledge_client()
        .get(url(&server))
        .send()
        .await
        .unwrap();
    let refused = prior_knowledge_client()
        .get(url(&closed_to_it))
        .send()
        .await;

    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "ok /path");
    assert!(refused.is_err());
    assert_eq!(closed_to_it.requests(), 0);
}

#[tokio::test]
async fn a_cleartext_http_2_listener_also_serves_http_1() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let close = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");

    for piece in [1, 3, close.len()] {
        let mut client = server.connect().await;
        for piece in close.as_bytes().chunks(piece) {
            client.send(piece).await;
        }
        let answer = client.read_to_end().await;

        assert_eq!(statuses(&answer), [200], "{answer}");
    }
}

#[tokio::test]
async fn a_partial_preface_is_closed() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.header_timeout = Duration::from_millis(50);
    })
    .await;

    let answer = server.send_raw(&PREFACE[..10]).await;

    assert_eq!(answer, "");
    server.wait_for_close_reason("header-timeout").await;
}

#[tokio::test]
async fn streams_and_header_lists_are_limited() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let mut client = server.connect().await;
    client.send([PREFACE, &SETTINGS].concat()).await;

    let mut head = [0; 9];
    client.stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[2])];
    client.stream.read_exact(&mut payload).await.unwrap();

    assert_eq!(head[3], 4, "SETTINGS");
    let settings: Vec<_> = payload
        .chunks(6)
        .map(|setting| {
            let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
            (setting[1], value)
        })
        .collect();
    assert!(settings.contains(&(3, 32)), "streams: {settings:?}");
    assert!(
        settings.contains(&(6, 32 * 1024)),
        "header list: {settings:?}"
    );
}

#[tokio::test]
async fn rapid_stream_resets_close_the_connection() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let mut client = server.connect().await;
    let mut attack = [PREFACE, &SETTINGS].concat();
    for stream in (1..4_000).step_by(2) {
        attack.extend(headers(stream));
        attack.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }

    // It may be cut off while it sends.
    let sent = client.stream.write_all(&attack).await;
    let reading = client.stream.read_to_end(&mut client.received);
    let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;

    assert!(read.is_ok(), "the connection is closed: {sent:?}");
    assert!(server.requests() < 2_000, "{}", server.requests());
    server.wait_for(&closed("error"), 1.0).await;
}

#[tokio::test]
async fn continuation_without_end_ends_the_connection() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let mut client = server.connect().await;
    let mut attack = [PREFACE, &SETTINGS].concat();
    attack.extend(frame(1, 0x1, 1, &[0x82, 0x86, 0x84]));
    for _ in 0..2_000 {
        // A field of its own in every frame, and no END_HEADERS.
        let mut field = vec![0x40, 1, b'a', 100];
        field.extend([b'b'; 100]);
        attack.extend(frame(9, 0, 1, &field));
    }

    let sent = client.stream.write_all(&attack).await;
    let reading = client.stream.read_to_end(&mut client.received);
    let read = tokio::time::timeout(TEST_TIMEOUT, reading).await;

    assert!(read.is_ok(), "the connection is closed: {sent:?}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_get_with_a_body_or_with_another_host_is_refused_in_http_2_too() {
    let server = ListenerFixture::start_with(|config| config.http2_cleartext = true).await;
    let client = prior_knowledge_client();

    let body = client.get(url(&server)).body("body").send().await.unwrap();
    let host = client
        .get(url(&server))
        .header("host", "elsewhere.example")
        .send()
        .await
        .unwrap();

    assert_eq!(body.status(), 400);
    assert_eq!(host.status(), 400);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_idle_connection_of_http_2_is_closed() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.idle_timeout = Duration::from_millis(50);
    })
    .await;
    let client = prior_knowledge_client();

    client.get(url(&server)).send().await.unwrap();

    server.wait_for_close_reason("idle-timeout").await;
    drop(client);
}

#[tokio::test]
async fn an_overdue_stream_closes_the_connection_despite_busy_streams() {
    for taken in [0, 1] {
        let server = ListenerFixture::start_with(|config| {
            config.http2_cleartext = true;
            config.limits.request_timeout = Duration::from_millis(50);
        })
        .await;
        let client = server.connect().await;
        let (mut answers, mut requests) = client.stream.into_split();
        let busy = async {
            let opening = [PREFACE, &settings_with_window(taken), &headers(1)].concat();
            requests.write_all(&opening).await.unwrap();
            // It ends when the server has had enough.
            for stream in (3..).step_by(2) {
                let next = [headers(stream), window_update(stream)].concat();
                if requests.write_all(&next).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };

        let mut received = Vec::new();
        let both = async { tokio::join!(answers.read_to_end(&mut received), busy) };
        let ended = tokio::time::timeout(TEST_TIMEOUT, both).await;

        assert!(ended.is_ok(), "{taken}: the connection is closed");
        assert!(server.requests() > 1, "{taken}: {}", server.requests());
        server.wait_for_close_reason("request-timeout").await;
    }
}

#[tokio::test]
async fn a_stalled_stream_is_reset_and_others_continue() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.stall_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = server.connect().await;

    client
        .send([PREFACE, &settings_with_window(0), &headers(1)].concat())
        .await;
    let reset = frame(3, 0, 1, &8_u32.to_be_bytes());
    client.receive_frame(&reset).await;
    client.send([headers(3), window_update(3)].concat()).await;
    client.receive("ok /").await;

    assert_eq!(server.sample(&closed("stall-timeout")), 0.0);
}

#[tokio::test]
async fn a_large_response_that_stalls_midway_is_reset() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.stall_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = server.connect().await;

    let large = [0x82, 0x86, 0x04, 6]
        .into_iter()
        .chain(*b"/large")
        .chain([0x41, 0x01, b'x']);
    let large = frame(1, 0x5, 1, &large.collect::<Vec<_>>());
    client
        .send([PREFACE, &settings_with_window(40_000), &large].concat())
        .await;

    let reset = frame(3, 0, 1, &8_u32.to_be_bytes());
    client.receive_frame(&reset).await;
    assert_eq!(server.sample(&closed("stall-timeout")), 0.0);
}

#[tokio::test]
async fn a_stalled_stream_that_cannot_be_reset_closes_its_connection() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.stall_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = server.connect().await;

    // hyper has the whole answer at once.
    client
        .send([PREFACE, &settings_with_window(1), &headers(1)].concat())
        .await;

    server.wait_for_close_reason("stall-timeout").await;
    drop(client);
}

#[tokio::test]
async fn a_connection_may_outlast_the_request_timeout_of_one_stream() {
    let server = ListenerFixture::start_with(|config| {
        config.http2_cleartext = true;
        config.limits.request_timeout = Duration::from_secs(1);
    })
    .await;
    let mut client = server.connect().await;
    client
        .send([PREFACE, &settings_with_window(1)].concat())
        .await;
    client.send(headers(1)).await;

    for stream in (3..19).step_by(2) {
        // There is always one that is not answered whole yet.
        client.send(headers(stream)).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send(window_update(stream - 2)).await;
        client.receive("k /").await;
    }

    assert_eq!(server.sample(&closed("request-timeout")), 0.0);
}

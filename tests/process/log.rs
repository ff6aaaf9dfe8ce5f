//! A log that is not read.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use usage_proxy::simulator::Faults;

use crate::support::{PATIENCE, PartnerCenter, Running, Service, usage_proxy};

/// Sends so many requests in one connection, and returns how many were answered.
async fn send_requests(service: &Service, count: usize) -> usize {
    let host = service.api.trim_start_matches("http://");
    let request = format!("GET /nothing HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let requests = request.repeat(count - 1) + &last;
    let answers = async {
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    };
    let answers = timeout(PATIENCE, answers).await;
    let answers = answers.expect("requests are answered while nobody reads the log");
    answers.matches("HTTP/1.1 404").count()
}

#[tokio::test]
async fn an_unread_log_delays_neither_answers_nor_shutdown() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let mut command = account.command(usage_proxy(), "serve");
    let running = Running::start_unread_after(&mut command, "\"listening\"");
    let mut service = Service::listening(running).await;

    // The pipe takes some 160 lines, and 4,096 wait for room in it.
    let mut answered = 0;
    for _ in 0..60 {
        answered += send_requests(&service, 100).await;
    }
    let liveness = service.admin_get("/healthz").await;
    let dropped = service.metric("usage_proxy_log_lines_dropped_total").await;
    service.running.signal("TERM");
    let ended = service.running.ended().await;

    assert_eq!(answered, 6_000);
    assert_eq!(liveness.status, 200);
    assert!(dropped > 0.0 && dropped < 6_000.0, "{dropped}");
    assert_eq!(ended.code(), Some(0));
}

use super::*;

#[tokio::test]
async fn a_drain_sends_connection_close_before_it_closes_idle_connections() {
    let mut server = ListenerFixture::start().await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    for client in [&mut busy, &mut idle] {
        client.send(GET).await;
        client.receive("ok /path").await;
    }

    server.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    busy.send(GET).await;
    let last = busy.read_to_end().await;
    let nothing = idle.read_to_end().await;

    assert_eq!(statuses(&last), [200], "{last}");
    assert!(last.contains("connection: close\r\n"), "{last}");
    assert_eq!(nothing, "");
    assert_eq!(server.running.join_next().await.unwrap().unwrap(), 0);
}

use super::*;

#[tokio::test]
async fn at_the_end_busy_clients_are_told_to_leave_before_idle_ones_are_closed() {
    let mut server = Server::start().await;
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
    let last = busy.closed().await;
    let nothing = idle.closed().await;

    assert_eq!(statuses(&last), [200], "{last}");
    assert!(last.contains("connection: close\r\n"), "{last}");
    assert_eq!(nothing, "");
    assert_eq!(server.running.join_next().await.unwrap().unwrap(), 0);
}

//! Shutdown: orderly after one signal, immediate after two.

use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::support::{Account, PATIENCE, PartnerCenter, Service, try_get, usage_proxy};

async fn service(partner_center: &PartnerCenter) -> (Account, Service) {
    let account = partner_center.account();
    let service = account.serve().await;
    (account, service)
}

/// Waits until new connections to this address are refused.
async fn wait_until_closed(url: &str) {
    let closed = async { while try_get(url, &[]).await.is_ok() {} };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    assert!(closed.is_ok(), "{url} is still open");
}

#[tokio::test]
async fn a_signal_ends_it_after_the_requests_in_flight_and_it_is_not_ready_meanwhile() {
    for signal in ["TERM", "INT"] {
        let partner_center = PartnerCenter::with(Faults::default()).await;
        let (_account, mut service) = service(&partner_center).await;
        let customer = partner_center.handle.customers()[1];
        let listener = service.api.trim_start_matches("http://");
        let _idle = tokio::net::TcpStream::connect(listener).await.unwrap();
        partner_center.handle.hold_calls();

        let (in_flight, (readiness, liveness)) = tokio::join!(service.usage(customer), async {
            partner_center
                .wait_for_calls(SimulatedApi::Insights, 1)
                .await;
            service.running.signal(signal);
            service.running.stderr.line_with("no longer ready").await;
            let readiness = service.admin_get("/readyz").await;
            let liveness = service.admin_get("/healthz").await;
            // The listener closes a moment after the signal; who comes before that is served.
            wait_until_closed(&service.api).await;
            partner_center.handle.release_calls();
            (readiness, liveness)
        });

        assert_eq!(readiness.status, 503, "{signal}: {}", readiness.body);
        assert!(readiness.body.contains("draining"), "{signal}");
        assert_eq!(liveness.status, 200, "{signal}");
        assert_eq!(in_flight.status, 200, "{signal}");
        assert!(in_flight.body.contains("workloads"), "{in_flight:?}");
        assert_eq!(service.running.ended().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let (_account, mut service) = service(&partner_center).await;
    let customer = partner_center.handle.customers()[1];
    let url = format!("{}/v1/customers/{customer}/usage", service.api);
    partner_center.handle.hold_calls();

    let (in_flight, ()) = tokio::join!(try_get(&url, &[]), async {
        partner_center
            .wait_for_calls(SimulatedApi::Insights, 1)
            .await;
        service.running.signal("TERM");
        service.running.stderr.line_with("no longer ready").await;
        service.running.signal("INT");
    });

    assert!(in_flight.is_err(), "it was cut off");
    let status = service.running.ended().await;
    assert_eq!(status.code(), Some(130), "{}", service.running.transcript());
}

#[tokio::test]
async fn a_second_signal_ends_it_while_the_last_token_request_is_in_flight() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let partner_center = PartnerCenter::with(Faults::default()).await;
        partner_center.handle.hold_tokens();
        let (_account, mut service) = service(&partner_center).await;
        partner_center.wait_for_calls(SimulatedApi::Token, 1).await;

        service.running.signal("TERM");
        // The listeners close before the process waits for its last token request.
        wait_until_closed(&service.admin).await;
        service.running.signal(signal);
        let status = service.running.ended().await;

        assert_eq!(status.code(), Some(code), "{signal}");
    }
}

#[tokio::test]
async fn requests_that_outlast_the_drain_are_cut_off_and_logged() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let mut command = account.command(usage_proxy(), "serve");
    command.args(["--set", "server.drain_timeout=50ms"]);
    let mut service = Service::start(&mut command).await;
    let customer = partner_center.handle.customers()[1];
    let url = format!("{}/v1/customers/{customer}/usage", service.api);
    partner_center.handle.hold_calls();

    let (under_way, ()) = tokio::join!(try_get(&url, &[]), async {
        partner_center
            .wait_for_calls(SimulatedApi::Insights, 1)
            .await;
        service.running.signal("TERM");
    });

    assert!(
        under_way.is_err(),
        "its connection goes before its call does"
    );
    assert_eq!(service.running.ended().await.code(), Some(0));
    service
        .running
        .stderr
        .line_with("server.drain_timeout")
        .await;
}

#[tokio::test]
async fn the_service_manager_is_notified_of_start_and_stop() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let socket = tokio::net::UnixDatagram::bind(account.path("notify")).unwrap();
    let message = async || {
        let mut buffer = [0; 64];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer));
        let length = received.await.expect("no message came").unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };

    let mut command = account.command(usage_proxy(), "serve");
    let mut service = Service::start(command.env("NOTIFY_SOCKET", account.path("notify"))).await;
    let started = message().await;
    service.running.signal("TERM");
    let stopped = message().await;

    assert_eq!(
        (started.as_str(), stopped.as_str()),
        ("READY=1", "STOPPING=1")
    );
    assert_eq!(service.running.ended().await.code(), Some(0));
}

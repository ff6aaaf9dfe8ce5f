//! How it ends: in order when told once, now when told twice.

use usage_proxy::simulator::{SimulatedApi, SimulatorOptions};

use crate::support::{Account, PartnerCenter, Service, get, try_get, usage_proxy};

async fn service(partner_center: &PartnerCenter) -> (Account, Service) {
    let refresh_token = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &refresh_token);
    let service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
    (account, service)
}

#[tokio::test]
async fn told_to_end_it_finishes_what_is_under_way_and_is_not_ready_meanwhile() {
    for signal in ["TERM", "INT"] {
        let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
        let (_account, mut service) = service(&partner_center).await;
        let customer = partner_center.handle.customers()[1];
        partner_center.handle.hold_calls();

        let (under_way, (readiness, liveness, late)) =
            tokio::join!(service.usage(customer), async {
                partner_center
                    .handle
                    .wait_for_requests(SimulatedApi::Insights, 1)
                    .await;
                service.running.signal(signal);
                service.running.stderr.line_with("no longer ready").await;
                let readiness = get(&format!("{}/readyz", service.admin), &[]).await;
                let liveness = get(&format!("{}/healthz", service.admin), &[]).await;
                // The listener closes a moment after the signal; who comes before that is served.
                let late =
                    async { while try_get(&format!("{}/", service.api), &[]).await.is_ok() {} };
                let late = tokio::time::timeout(crate::support::PATIENCE, late).await;
                partner_center.handle.release_calls();
                (readiness, liveness, late)
            });

        assert_eq!(readiness.status, 503, "{signal}: {}", readiness.body);
        assert!(readiness.body.contains("draining"), "{signal}");
        assert_eq!(liveness.status, 200, "{signal}");
        assert!(late.is_ok(), "{signal}: new connections are refused");
        assert_eq!(under_way.status, 200, "{signal}");
        assert_eq!(service.running.ended().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn told_twice_it_ends_now() {
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
    let (_account, mut service) = service(&partner_center).await;
    let customer = partner_center.handle.customers()[1];
    let url = format!("{}/v1/customers/{customer}/usage", service.api);
    partner_center.handle.hold_calls();

    let (under_way, ()) = tokio::join!(try_get(&url, &[]), async {
        partner_center
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        service.running.signal("TERM");
        service.running.stderr.line_with("no longer ready").await;
        service.running.signal("INT");
    });

    assert!(under_way.is_err(), "it was cut off");
    let status = service.running.ended().await;
    assert_eq!(status.code(), Some(130), "{}", service.running.transcript());
}

#[tokio::test]
async fn a_second_signal_ends_it_while_the_last_token_request_is_under_way() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
        partner_center.handle.hold_tokens();
        let (_account, mut service) = service(&partner_center).await;
        partner_center
            .handle
            .wait_for_requests(SimulatedApi::Token, 1)
            .await;

        service.running.signal("TERM");
        // The listeners close before the process waits for its last token request.
        let closed = async { while try_get(&format!("{}/", service.admin), &[]).await.is_ok() {} };
        let closed = tokio::time::timeout(crate::support::PATIENCE, closed).await;
        service.running.signal(signal);
        let status = service.running.ended().await;

        assert!(closed.is_ok(), "{signal}");
        assert_eq!(status.code(), Some(code), "{signal}");
    }
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_off_and_said_so() {
    let partner_center = PartnerCenter::start(SimulatorOptions::default()).await;
    let refresh_token = partner_center.handle.issue_refresh_token();
    let account = Account::new(partner_center.address, "secret", &refresh_token);
    let mut command = account.command(usage_proxy(), "serve");
    command.args(["--set", "server.drain_timeout=50ms"]);
    let mut service = Service::start(&mut command).await;
    let customer = partner_center.handle.customers()[1];
    let url = format!("{}/v1/customers/{customer}/usage", service.api);
    partner_center.handle.hold_calls();

    let (under_way, ()) = tokio::join!(try_get(&url, &[]), async {
        partner_center
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
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

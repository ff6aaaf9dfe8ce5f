//! Known secrets, sent down every path: none of them ever comes out again.

use std::collections::BTreeSet;

use http::StatusCode;
use uuid::Uuid;

use usage_proxy::simulator::{
    BodyFault, Faults, NO_RELATIONSHIP_CUSTOMER, SimulatedApi, SimulatorOptions,
};

use crate::support::{
    Account, PartnerCenter, Service, assert_has, get, usage_proxy, usage_proxy_after,
};

const CLIENT_SECRET: &str = "canary~client.secret-9f2c4e";
const REFRESH_TOKEN: &str = "canary~refresh.token-51ab07";
const OF_THE_CALLER: &str = "canary~caller.credential-77d0e1";

/// Secrets, and everything that came out.
struct Watch {
    partner_center: PartnerCenter,
    account: Account,
    secrets: BTreeSet<String>,
    outside: String,
}

// === impl Watch ===

impl Watch {
    async fn start() -> Self {
        let options = SimulatorOptions {
            client_secret: Some(CLIENT_SECRET.into()),
            ..SimulatorOptions::default()
        };
        let partner_center = PartnerCenter::start(options).await;
        let account = Account::new(partner_center.address, CLIENT_SECRET, REFRESH_TOKEN);
        Self {
            partner_center,
            account,
            secrets: [CLIENT_SECRET, REFRESH_TOKEN, OF_THE_CALLER]
                .map(str::to_owned)
                .into(),
            outside: String::new(),
        }
    }

    /// The service, telling of itself as much as it can.
    async fn serve(&self, binary: std::process::Command) -> Service {
        let mut command = self.account.command(binary, "serve");
        command.args(["--set", "log.filter=trace", "--set", "upstream.retries=0"]);
        Service::start(&mut command).await
    }

    /// Asks as a caller that shows a credential of its own, and hears the answer.
    async fn hear(&mut self, url: String, headers: &[(&str, &str)]) -> u16 {
        let own = format!("Bearer {OF_THE_CALLER}");
        let headers: Vec<_> = headers
            .iter()
            .copied()
            .chain([("authorization", &*own), ("cookie", &*own)])
            .collect();
        let reply = get(&url, &headers).await;
        self.outside
            .push_str(&format!("{}\n{}\n", reply.head, reply.body));
        self.note_tokens();
        reply.status
    }

    async fn usage(&mut self, service: &Service, customer: Uuid) -> u16 {
        let url = format!("{}/v1/customers/{customer}/usage", service.api);
        self.hear(url, &[]).await
    }

    async fn look_around(&mut self, service: &Service, customer: Uuid) {
        for path in ["/metrics", "/cache", "/readyz", "/healthz", "/nothing"] {
            self.hear(format!("{}{path}", service.admin), &[]).await;
        }
        let url = format!("{}/cache?customer={customer}", service.admin);
        self.hear(url, &[]).await;
    }

    /// Ends the service, and hears the rest of what it says.
    async fn end(&mut self, mut service: Service) {
        service.running.signal("TERM");
        assert_eq!(service.running.ended().await.code(), Some(0));
        self.outside.push_str(&service.running.transcript());
        self.note_tokens();
    }

    /// Every access token that was shown, and every refresh token that is good.
    fn note_tokens(&mut self) {
        let handle = &self.partner_center.handle;
        self.secrets.extend(handle.live_refresh_tokens());
        self.secrets.extend(self.access_tokens());
    }

    fn access_tokens(&self) -> BTreeSet<String> {
        let requests = self.partner_center.handle.requests().into_iter();
        requests
            .filter_map(|request| {
                let authorization = request.header("authorization")?;
                Some(authorization.strip_prefix("Bearer ")?.to_owned())
            })
            .collect()
    }

    #[track_caller]
    fn assert_nothing_came_out(&self) {
        for secret in &self.secrets {
            // A part of a secret is too much already.
            let part = &secret[..16];
            if let Some(at) = self.outside.find(part) {
                let line = self.outside[..at].rfind('\n').map_or(0, |end| end + 1);
                let rest = self.outside[line..].lines().next().unwrap_or_default();
                panic!("{part}… came out:\n{rest}");
            }
        }
    }
}

fn failing(status: u16) -> Faults {
    Faults {
        status: Some(StatusCode::from_u16(status).unwrap()),
        ..Faults::default()
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_trace_level() {
    let mut watch = Watch::start().await;
    let handle = watch.partner_center.handle.clone();
    let customers = handle.customers();
    let customer = customers[1];
    let service = watch.serve(usage_proxy()).await;
    let api = service.api.clone();

    // Success, in all forms, fetched and cached.
    assert_eq!(watch.usage(&service, customer).await, 200);
    assert_eq!(watch.usage(&service, customer).await, 200);
    let own = format!("{api}/v1/customers/{customer}");
    let native = format!("{own}/analytics/licenses/usage");
    assert_eq!(watch.hear(native, &[]).await, 200);
    let csv = [("accept", "text/csv")];
    assert_eq!(watch.hear(format!("{own}/usage"), &csv).await, 200);
    let dated = format!("{own}/usage?processedDate={}", handle.newest_date());
    assert_eq!(watch.hear(dated, &[]).await, 200);
    // A token that is refused, and the one after it.
    handle.revoke_access_tokens();
    assert_eq!(watch.usage(&service, customers[2]).await, 200);
    assert_eq!(watch.access_tokens().len(), 2);
    // Refusals, ours and theirs.
    let query = format!("{own}/usage?access_token={OF_THE_CALLER}");
    assert_eq!(watch.hear(query, &[]).await, 400);
    assert_eq!(watch.hear(format!("{api}/nothing"), &[]).await, 404);
    assert_eq!(watch.usage(&service, Uuid::from_u128(1)).await, 404);
    assert_eq!(watch.usage(&service, NO_RELATIONSHIP_CUSTOMER).await, 403);
    for (customer, status, ours, retry_after) in [
        (customers[3], 400, 502, None),
        (customers[4], 503, 503, None),
        (customers[5], 401, 502, None),
        (customers[6], 429, 503, Some("1")),
    ] {
        handle.set_faults(Faults {
            retry_after: retry_after.map(str::to_owned),
            ..failing(status)
        });
        assert_eq!(watch.usage(&service, customer).await, ours, "{status}");
    }
    // Answers that are none. The commercial call is not the one that is throttled by now.
    let of_a_date =
        |customer| format!("{api}/v1/customers/{customer}/usage?processedDate=2026-01-01");
    let html = Faults {
        body: Some(BodyFault::Html),
        ..Faults::default()
    };
    let broken_off = Faults {
        close_mid_body: true,
        ..Faults::default()
    };
    let no_mfa = Faults {
        mfa_required: true,
        ..Faults::default()
    };
    for (customer, faults, ours) in [
        (customers[7], html, 502),
        (customers[8], broken_off, 503),
        (customers[9], no_mfa, 502),
    ] {
        handle.set_faults(faults);
        assert_eq!(watch.hear(of_a_date(customer), &[]).await, ours);
    }
    watch.look_around(&service, customer).await;
    watch.end(service).await;

    // It was all used, and it would have been noticed.
    assert!(handle.request_count(SimulatedApi::Token) >= 2);
    assert!(!handle.live_refresh_tokens().contains(&REFRESH_TOKEN.into()));
    assert_ne!(watch.account.refresh_token(), REFRESH_TOKEN);
    assert!(watch.secrets.len() >= 3 + 2 + 2, "{}", watch.secrets.len());
    assert_has(
        &watch.outside,
        &[
            r#""level":"DEBUG""#,
            "effective configuration",
            "usage_proxy_token_refresh_total",
            "urn:usage-proxy:problem:credentials-refused",
            "\"holdings\"",
            "upstream call",
        ],
    );
    watch.assert_nothing_came_out();
}

#[tokio::test]
async fn a_token_that_partner_center_echoes_is_not_passed_on() {
    let mut watch = Watch::start().await;
    let handle = watch.partner_center.handle.clone();
    let customers = handle.customers();
    let service = watch.serve(usage_proxy()).await;
    watch.usage(&service, customers[1]).await;
    let token = watch.access_tokens().pop_first().unwrap();
    handle.set_faults(Faults {
        description: Some(format!("Bearer {token} may not do this.")),
        code: Some("2100".to_owned()),
        ..failing(400)
    });

    let status = watch.usage(&service, customers[2]).await;
    watch.end(service).await;

    assert_eq!(status, 502);
    assert_has(&watch.outside, &["may not do this."]);
    watch.assert_nothing_came_out();
}

#[tokio::test]
async fn no_secret_is_logged_when_credentials_are_refused() {
    for error in ["invalid_grant", "invalid_client", "temporarily_unavailable"] {
        let mut watch = Watch::start().await;
        let handle = watch.partner_center.handle.clone();
        handle.set_faults(Faults {
            token_error: Some(error.to_owned()),
            ..Faults::default()
        });
        let customer = handle.customers()[1];
        let service = watch.serve(usage_proxy()).await;

        let status = watch.usage(&service, customer).await;
        watch.look_around(&service, customer).await;
        watch.end(service).await;

        assert!(matches!(status, 502 | 503), "{error}: {status}");
        assert!(handle.request_count(SimulatedApi::Token) >= 1, "{error}");
        watch.assert_nothing_came_out();
    }
}

#[tokio::test]
async fn no_secret_is_logged_when_one_cannot_be_written() {
    let mut watch = Watch::start().await;
    let customer = watch.partner_center.handle.customers()[1];
    let full_disk = usage_proxy_after("trap '' XFSZ; ulimit -f 0");
    let service = watch.serve(full_disk).await;

    let status = watch.usage(&service, customer).await;
    watch.look_around(&service, customer).await;
    watch.end(service).await;

    assert_eq!(status, 200);
    assert_has(&watch.outside, &["cannot be written"]);
    watch.assert_nothing_came_out();
}

#[tokio::test]
async fn a_secret_pasted_into_a_configuration_is_not_printed() {
    let mut watch = Watch::start().await;
    let with_password = format!("https://me:{CLIENT_SECRET}@host.example");
    let client_secret = format!("upstream.auth.client_secret={CLIENT_SECRET}");
    for command in ["serve", "check-config"] {
        for (case, flag) in [
            ("a key of its own", client_secret.clone()),
            ("a misspelt one", client_secret.replace("_", "")),
            ("a URL", format!("upstream.base_url={with_password}")),
            (
                "a query",
                format!("upstream.auth.token_url=https://host.example/?s={CLIENT_SECRET}"),
            ),
        ] {
            let mut command = watch.account.command(usage_proxy(), command);
            command
                .env("USAGE_PROXY__UPSTREAM__AUTH__REFRESH_TOKEN", REFRESH_TOKEN)
                .args(["--set", &flag]);

            let output = command.output().unwrap();

            assert_eq!(output.status.code(), Some(2), "{case}");
            for said in [output.stdout, output.stderr] {
                watch.outside.push_str(&String::from_utf8(said).unwrap());
            }
        }
    }
    let mut check = watch.account.command(usage_proxy(), "check-config");
    let check = String::from_utf8(check.output().unwrap().stdout).unwrap();
    assert_has(&check, &["client_secret_file"]);
    watch.outside.push_str(&check);

    watch.assert_nothing_came_out();
}

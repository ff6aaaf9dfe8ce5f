//! Faults and checks of the simulator: if one did nothing, tests that rely on it would still pass.

mod authorization;
mod calls;
mod control;
mod faults;
mod tokens;

use http::StatusCode;
use jiff::civil::{Date, date};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::*;
use crate::clock::ManualClock;

const TODAY: Date = date(2026, 11, 20);

const COMMERCIAL: &str = "/v1/analytics/commercial/usage/license/";

/// A running simulator and a client that has a token.
struct TestSimulator {
    base: Url,
    client: Client,
    handle: SimulatorHandle,
    token: String,
    shutdown: Shutdown,
}

impl TestSimulator {
    async fn start() -> Self {
        Self::start_with(SimulatorOptions::default()).await
    }

    async fn start_with(options: SimulatorOptions) -> Self {
        let options = SimulatorOptions {
            today: TODAY,
            ..options
        };
        let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), options)
            .await
            .unwrap();
        let base = format!("http://{}", simulator.local_addr());
        let handle = simulator.handle();
        let shutdown = Shutdown::new();
        shutdown.spawn(simulator.run(shutdown.clone()));
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let mut simulator = Self {
            base: base.parse().unwrap(),
            client,
            handle,
            token: String::new(),
            shutdown,
        };
        simulator.token = simulator.user_token().await;
        simulator.handle.clear_requests();
        simulator
    }

    async fn user_token(&self) -> String {
        let refresh_token = self.handle.issue_refresh_token();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &refresh_token),
        ];
        let answer = self.request_token("/tenant/oauth2/token", &form).await;
        json(answer).await["access_token"].as_str().unwrap().into()
    }

    /// A token request with everything in it that both versions ask of every grant.
    async fn request_token(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let mut whole = vec![
            ("client_id", "usage-proxy"),
            ("client_secret", "secret"),
            ("resource", "https://api.partnercenter.microsoft.com"),
            (
                "scope",
                "https://api.partnercenter.microsoft.com/user_impersonation",
            ),
        ];
        whole.retain(|(name, _)| form.iter().all(|(given, _)| given != name));
        whole.extend(form);
        whole.retain(|(_, value)| !value.is_empty());
        let url = self.url(path);
        self.client.post(url).form(&whole).send().await.unwrap()
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).unwrap()
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path)).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(path).send().await.unwrap()
    }

    async fn insights(&self, customer: Uuid) -> Response {
        self.get(&insights_path(customer)).await
    }

    async fn commercial(&self, query: &[(&str, &str)]) -> Response {
        let request = self.request(COMMERCIAL).query(query);
        request.send().await.unwrap()
    }
}

fn insights_path(customer: Uuid) -> String {
    format!("/v1/customers/{customer}/analytics/licenses/usage")
}

async fn json(response: Response) -> Value {
    let body = response.bytes().await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn it_shuts_down_promptly_while_responses_are_held() {
    let simulator = TestSimulator::start().await;
    simulator.handle.hold_calls();
    let path = insights_path(DOCUMENTED_CUSTOMER);
    let pending = simulator.request(&path).send();
    let end = async {
        simulator
            .handle
            .wait_for_requests(SimulatedApi::Insights, 1)
            .await;
        simulator.shutdown.drain();
    };

    let (answer, ()) = tokio::join!(pending, end);

    assert!(answer.is_err(), "the held answer was dropped");
    let refused = simulator
        .client
        .get(simulator.url("/_simulator"))
        .send()
        .await;
    assert!(refused.is_err(), "nobody listens any more");
}

//! SIGKILL at random moments while the refresh token rotates: the service always comes back.
//!
//! The simulator rotates the token with each redemption, and takes one that was redeemed only until
//! anything is used that came for it. A client that keeps each token before it uses what came with it
//! holds one that is taken, whenever it is killed; another is locked out for good, which the next
//! start shows. `CRASH_ROUNDS` says how many kills there are, and `CRASH_SEED` repeats a run's
//! moments, as far as the machine is as fast.

use std::{env, process::Command, str::FromStr, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::support::{Account, PartnerCenter, Running, Service, usage_proxy};

const ROUNDS: usize = 400;

/// Services that are killed side by side, each with a simulator of its own.
const LANES: usize = 4;

/// Longer than a start takes until it has a token.
const START: Duration = Duration::from_millis(80);

/// Longer than it takes to redeem a token and to write what comes of it.
const ROTATION: Duration = Duration::from_millis(10);

/// A service that is killed again and again, and its simulator.
struct Lane {
    partner_center: PartnerCenter,
    account: Account,
    client: reqwest::Client,
    random: StdRng,
    /// Kills that left a temporary file behind: in mid-write.
    in_mid_write: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_comes_back_whenever_it_is_killed_while_its_token_rotates() {
    let rounds = variable("CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = variable("CRASH_SEED").unwrap_or_else(rand::random::<u64>);
    println!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");

    let lanes = (0..LANES).map(|lane| {
        let rounds = rounds / LANES + usize::from(lane < rounds % LANES);
        tokio::spawn(async move {
            let mut lane = Lane::start(seed.wrapping_add(lane as u64)).await;
            for round in 1..=rounds {
                lane.kill_once(round).await;
            }
            lane.comes_back().await;
            lane
        })
    });
    let (mut between, mut in_mid_write) = (0, 0);
    for lane in lanes.collect::<Vec<_>>() {
        let lane = lane.await.unwrap();
        between += lane.partner_center.handle.reused_refresh_tokens();
        in_mid_write += lane.in_mid_write;
    }

    // Shown again, a token was redeemed and what replaced it was never kept: killed in between.
    println!("killed between redemption and write: {between}, in mid-write: {in_mid_write}");
    assert!(between > rounds / 50, "only {between} of {rounds}");
}

pub(crate) fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().ok().expect(name))
}

// === impl Lane ===

impl Lane {
    async fn start(seed: u64) -> Self {
        let partner_center = PartnerCenter::with(Faults {
            graceful_rotation: true,
            ..Faults::default()
        })
        .await;
        Self {
            account: partner_center.account(),
            partner_center,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            random: StdRng::seed_from_u64(seed),
            in_mid_write: 0,
        }
    }

    /// Starts the service and kills it: as it starts, as it redeems its first token, or as it has
    /// come back and is made to redeem the next.
    async fn kill_once(&mut self, round: usize) {
        let running = match round % 4 {
            0 => {
                let running = Running::start(&mut self.command());
                self.random_moment_of(START).await;
                running
            }
            1 => {
                let next = self.token_requests() + 1;
                let running = Running::start(&mut self.command());
                self.token_is_requested(next).await;
                self.early_moment_of(ROTATION).await;
                running
            }
            _ => {
                let service = self.comes_back().await;
                let next = self.token_requests() + 1;
                let answered = self.use_token(&service, 1).await.unwrap();
                assert_eq!(answered.status(), 200);
                self.partner_center.handle.revoke_access_tokens();
                tokio::spawn(self.use_token(&service, 2));
                self.token_is_requested(next).await;
                self.early_moment_of(ROTATION).await;
                service.running
            }
        };
        running.kill();
        self.clear_away();
    }

    /// A start that ends with a token in hand.
    async fn comes_back(&self) -> Service {
        let service = Service::start(&mut self.command()).await;
        let line = service.running.stderr.line_with("access token").await;
        assert!(line.contains("access token obtained"), "{line}");
        let ready = self.ask(format!("{}/readyz", service.admin)).await;
        assert_eq!(ready.unwrap().status(), 200);
        service
    }

    /// Has the service ask its simulator.
    fn use_token(
        &self,
        service: &Service,
        customer: usize,
    ) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
        let customer = self.partner_center.handle.customers()[customer];
        self.ask(format!("{}/v1/customers/{customer}/usage", service.api))
    }

    fn command(&self) -> Command {
        self.account.command(usage_proxy(), "serve")
    }

    fn ask(&self, url: String) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
        self.client.get(url).send()
    }

    fn token_requests(&self) -> usize {
        self.partner_center
            .handle
            .request_count(SimulatedApi::Token)
    }

    async fn token_is_requested(&self, times: usize) {
        self.partner_center
            .wait_for_calls(SimulatedApi::Token, times)
            .await;
    }

    async fn random_moment_of(&mut self, window: Duration) {
        tokio::time::sleep(window.mul_f64(self.random.random::<f64>())).await;
    }

    /// As random, and likelier early: a machine may be faster than thought, or slower.
    async fn early_moment_of(&mut self, window: Duration) {
        let sooner = self.random.random::<f64>();
        self.random_moment_of(window.mul_f64(sooner)).await;
    }

    /// Counts and removes what a kill in mid-write left.
    fn clear_away(&mut self) {
        for entry in std::fs::read_dir(self.account.folder()).unwrap() {
            let entry = entry.unwrap();
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(".usage-proxy-")
            {
                std::fs::remove_file(entry.path()).unwrap();
                self.in_mid_write += 1;
            }
        }
    }
}

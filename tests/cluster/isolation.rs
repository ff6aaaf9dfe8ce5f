//! Callers of different customers, while replicas die, connections end and purges come.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
};
use usage_proxy::access_key::KeyHash;

use crate::support::{Cluster, Question, World, wait_until};

/// The customers that the callers may read: those whose number leaves the rest `caller` by their number.
const CALLERS: usize = 3;

/// Customers that callers ask for.
const CUSTOMERS: usize = 12;

/// Requests of one caller at the same time.
const TASKS_OF_EACH: usize = 4;

/// The disturbances, which come one after the other.
const ROUNDS: usize = 12;

fn key(caller: usize) -> String {
    format!("up_canary-key-of-{caller}")
}

/// A callers file in which each may read customers of its own.
fn callers_file(world: &World) -> String {
    let caller = |caller: usize| {
        let its = (0..CUSTOMERS).filter(|customer| customer % CALLERS == caller);
        let its: Vec<_> = its.map(|customer| world.id(customer).to_string()).collect();
        let hash = KeyHash::of_key(key(caller).as_bytes()).to_string();
        format!(
            "[[caller]]\nname = \"caller-{caller}\"\nkey_sha256 = [\"{hash}\"]\n\
             customers = {its:?}\nscopes = [\"usage:read\", \"cache:refresh\"]\n"
        )
    };
    (0..CALLERS).map(caller).collect()
}

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

/// Asks for any customer, of any replica. A replica that dies gives no answer, and a wrong one panics.
async fn ask_for_ever(
    world: Arc<World>,
    replicas: watch::Receiver<HashMap<usize, String>>,
    caller: usize,
    seed: u64,
    seen: Arc<Seen>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    while !seen.is_over.load(Relaxed) {
        let replica = random.random_range(0..2);
        let api = replicas.borrow().get(&replica).cloned();
        let Some(api) = api else {
            yield_now().await;
            continue;
        };
        let customer = random.random_range(0..CUSTOMERS);
        let question = Question {
            api,
            replica,
            customer,
            key: Some(key(caller)),
            is_fresh: random.random_bool(0.2),
        };
        // After a hard purge nobody knows which date was the newest.
        let Ok(answer) = world.ask_any_date(question).await else {
            continue;
        };
        match (customer % CALLERS == caller, answer.status) {
            (true, 200) => seen.answered.fetch_add(1, Relaxed),
            // Nothing of it may be in the answer.
            (false, 403) => seen.refused.fetch_add(1, Relaxed),
            found => panic!("{found:?}: {answer:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_gets_usage_of_another_ones_customer() {
    let mut cluster = Cluster::start_with(
        &["cache.min_refresh_interval=0s"],
        |server| [server.port(); 3],
        |world, account| {
            account.write("callers.toml", &callers_file(world));
            vec![format!(
                "callers.file={}",
                account.path("callers.toml").display()
            )]
        },
    )
    .await;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let (replicas, asked) = watch::channel(HashMap::new());
    for number in 0..2 {
        let api = cluster.replicas[number].service.api.clone();
        replicas.send_modify(|replicas| drop(replicas.insert(number, api)));
    }
    let seen = Arc::new(Seen::default());
    let mut callers = JoinSet::new();
    for task in 0..CALLERS * TASKS_OF_EACH {
        callers.spawn(ask_for_ever(
            cluster.world(),
            asked.clone(),
            task % CALLERS,
            seed.wrapping_add(task as u64),
            Arc::clone(&seen),
        ));
    }

    let mut random = StdRng::seed_from_u64(seed);
    for round in 1..=ROUNDS {
        let before = seen.answered.load(Relaxed);
        cluster.publish(round);
        match round % 4 {
            0 => {
                let number = random.random_range(0..2);
                // Its callers know that it is gone.
                replicas.send_modify(|replicas| drop(replicas.remove(&number)));
                cluster.replicas[number].kill();
                cluster.revive(number).await;
                let api = cluster.replicas[number].service.api.clone();
                replicas.send_modify(|replicas| drop(replicas.insert(number, api)));
            }
            1 => cluster.server.terminate_connections(),
            2 => {
                cluster.server.stop();
                tokio::time::sleep(Duration::from_millis(300)).await;
                cluster.server.go_on();
            }
            _ => {}
        }
        for customer in 0..CUSTOMERS {
            let replica = &cluster.replicas[random.random_range(0..2)];
            match random.random_bool(0.5) {
                true => replica.purge_hard(customer).await,
                false => replica.purge(customer).await,
            }
            if let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
        }
        wait_until("the callers are answered", async || {
            seen.answered.load(Relaxed) > before + 20
        })
        .await;
    }
    seen.is_over.store(true, Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }

    let count = |seen: &AtomicUsize| seen.load(Relaxed);
    println!(
        "{} answers, {} refusals",
        count(&seen.answered),
        count(&seen.refused)
    );
    assert!(count(&seen.answered) > 20 * ROUNDS && count(&seen.refused) > 0);
}

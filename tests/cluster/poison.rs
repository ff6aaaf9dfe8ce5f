//! Rows of the database that no replica has written.

use crate::{
    process::{assert_has, get},
    support::{Cluster, Replica, wait_until},
};

/// The customer whose rows are changed, and one whose rows are right.
const POISONED: usize = 2;
const OTHER: usize = 3;

/// Replicas that have cached and stored both customers.
async fn cluster_with_both() -> Cluster {
    let cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    assert_eq!(cluster.replicas[0].ask(OTHER).await.status, 200);
    cluster.wait_until_stored(OTHER).await;
    cluster.wait_for_released_leases().await;
    cluster
}

/// Changes the database, and asserts that a replica without anything in memory asks upstream, and logs this.
async fn assert_asks_upstream(poison: &str, logged: &str) {
    let mut cluster = cluster_with_both().await;
    assert_poison_is_survived(&mut cluster, poison, logged).await;
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

async fn assert_poison_is_survived(cluster: &mut Cluster, poison: &str, logged: &str) {
    let number = |customer| {
        let id = cluster.world().id(customer);
        let statement = format!("SELECT id FROM usage_proxy.customer WHERE customer_id = '{id}'");
        cluster.server.psql(&statement)
    };
    let poison = poison
        .replace("POISONED", &number(POISONED))
        .replace("OTHER", &number(OTHER));
    cluster.server.psql(&poison);
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let before = cluster.calls();
    let poisoned = replica.ask_in_time(POISONED).await;
    let calls = cluster.calls() - before;
    let other = replica.ask_in_time(OTHER).await;

    // Neither is of another customer.
    assert_eq!((poisoned.status, other.status), (200, 200), "{poisoned:?}");
    assert_eq!(calls, 1, "{poison}: {poisoned:?}");
    replica.service.running.stderr.line_with(logged).await;
    // It is right again once the answer is stored.
    cluster.wait_until_recovered().await;
    cluster.replicas[1].kill();
    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);
    assert_eq!(replica.ask_in_time(POISONED).await.body, poisoned.body);
    cluster.assert_calls(calls, missed, 0).await;
}

/// A body, compressed as bodies are, in PostgreSQL's hexadecimal form.
fn compressed(body: &str) -> String {
    let compressed = zstd::bulk::compress(body.as_bytes(), 3).unwrap();
    let digits: String = compressed
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("'\\x{digits}', length = {}", body.len())
}

async fn wait_until_up(replica: &Replica) {
    wait_until("the store is up", async || {
        replica.service.metric("usage_proxy_store_up").await == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_an_unknown_product_is_not_served() {
    let poison = "UPDATE usage_proxy.fact SET product = 4711 WHERE customer = POISONED";
    assert_asks_upstream(poison, "unreadable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_negative_counts_is_not_served() {
    let poison = "UPDATE usage_proxy.fact SET licenses_qualified = -1 WHERE customer = POISONED";
    assert_asks_upstream(poison, "unreadable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bodies_and_texts_are_not_served() {
    let mut cluster = cluster_with_both().await;
    let body =
        |set: &str| format!("UPDATE usage_proxy.native_body SET {set} WHERE customer = POISONED");
    let no_json = format!("bytes = {}", compressed("no JSON"));
    let other_json = format!("bytes = {}", compressed("{\"customers\": []}"));
    for (poison, logged) in [
        (
            body("bytes = '\\xdeadbeef'"),
            "a stored snapshot is unreadable",
        ),
        (
            body("bytes = substring(bytes FROM 1 FOR 5)"),
            "a stored snapshot is unreadable",
        ),
        (body("bytes = ''"), "a stored snapshot is unreadable"),
        (body("length = 1000000000000"), "a body is too large"),
        (body("codec = 7"), "a body has the unknown codec 7"),
        (body(&no_json), "is not of its customer"),
        (body(&other_json), "is not of its customer"),
        // The number of the product is that of no text.
        (
            "UPDATE usage_proxy.product SET id = 3".to_owned(),
            "texts before this number are missing",
        ),
        (
            "UPDATE usage_proxy.snapshot SET customer_name = 4711 WHERE customer = POISONED"
                .to_owned(),
            "4711 is the number of no text",
        ),
        (
            "UPDATE usage_proxy.snapshot SET fetched_at = 9223372036854775807
                WHERE customer = POISONED"
                .to_owned(),
            "a stored snapshot is unreadable",
        ),
    ] {
        assert_poison_is_survived(&mut cluster, &poison, logged).await;
    }
    // They know the product by its number of before.
    for number in [0, 2] {
        cluster.replicas[number].kill();
        cluster.revive(number).await;
        wait_until_up(&cluster.replicas[number]).await;
    }
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_any_characters_are_served_in_every_form() {
    let mut cluster = cluster_with_both().await;
    let text =
        r#"E'\x01\x08\x0b\x1f\x7f\r\n\t]]><script>"\',;\u202e\u2400\u24000\ufffe\U0010ffff'"#;
    cluster.server.psql(&format!(
        "UPDATE usage_proxy.product SET product_name = {text}, product_id = {text}, channel = {text};
        UPDATE usage_proxy.workload SET workload_name = {text};
        UPDATE usage_proxy.customer SET name = {text};
        UPDATE usage_proxy.customer_name SET name = {text};
        INSERT INTO usage_proxy.customer (id, customer_id)
            SELECT max(id) + 1, {text} FROM usage_proxy.customer"
    ));
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let (calls, missed) = (cluster.calls(), cluster.missed().await);
    let id = cluster.world().id(POISONED);
    for path in [
        "usage",
        "usage/table.csv",
        "usage/chart.svg",
        "usage/history",
    ] {
        let url = format!("{}/v1/customers/{id}/{path}", replica.service.api);
        let answer = get(&url, &[]).await;

        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        match path {
            "usage" => drop(serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()),
            // XML has no other control characters.
            "usage/chart.svg" => assert!(
                !answer
                    .body
                    .contains(|c: char| c.is_ascii_control() && !"\t\r\n".contains(c)),
                "{answer:?}"
            ),
            _ => {}
        }
    }
    cluster.assert_calls(calls, missed, 0).await;
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordination_goes_on_in_spite_of_rows_without_sense() {
    let cluster = cluster_with_both().await;
    for poison in [
        "UPDATE usage_proxy.lease SET fence = -5, expires_at = 9223372036854775807",
        "UPDATE usage_proxy.lease SET fence = 9223372036854775807, expires_at = -9223372036854775808,
            finished_at = 9223372036854775807, failed_until = 9223372036854775807, failure = NULL",
        "UPDATE usage_proxy.lease SET failed_until = -9223372036854775808, failure = ''",
        "UPDATE usage_proxy.lease SET failure = 'x',
            failed_until = extract(epoch FROM now() + interval '1 year') * 1000",
        r#"UPDATE usage_proxy.lease SET failed_until = extract(epoch FROM now() + interval '1 s') * 1000,
            failure = '{"kind": "unavailable", "detail": "x", "retry_at_ms": 9223372036854775807}'"#,
        "INSERT INTO usage_proxy.throttle SELECT split_part(name, '/', 1) || '/insights/*',
            extract(epoch FROM now() + interval '1 year') * 1000 FROM usage_proxy.token",
        "INSERT INTO usage_proxy.replica VALUES
            (1, 9223372036854775807, 9223372036854775807), (2, 0, -1)",
    ] {
        cluster.server.psql(poison);
    }
    // A purge of a customer without a number.
    cluster.server.psql(
        "WITH next AS (UPDATE usage_proxy.store_state SET generation = generation + 1
            RETURNING generation),
        known AS (INSERT INTO usage_proxy.purge_generation SELECT generation FROM next)
        INSERT INTO usage_proxy.purge (generation, customer, day, mode, origin)
        SELECT generation, 4711, -5000000, 0, NULL FROM next",
    );
    for replica in &cluster.replicas {
        let stderr = &replica.service.running.stderr;
        stderr
            .line_with("a stored purge is of no known customer")
            .await;
    }

    for customer in [POISONED, OTHER, 5, 6] {
        let (calls, missed) = (cluster.calls(), cluster.missed().await);
        for replica in &cluster.replicas {
            let answer = replica.ask_in_time(customer).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        cluster.wait_for_released_leases().await;
        let most = 1 + cluster.missed().await - missed;
        let calls = cluster.calls() - calls;
        assert!(calls <= most, "{calls} calls, expected up to {most}");
    }
    cluster.wait_until_recovered().await;
    for day in 1..4 {
        cluster.assert_purges_reach_all(POISONED, day).await;
    }
    let replicas = "SELECT count(*) FROM usage_proxy.replica";
    assert_eq!(cluster.server.psql(replicas), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_other_bytes_is_redeemed_again() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    for (set, other) in [
        ("access_token = sha256(access_token)", OTHER),
        (
            "access_token = substring(access_token FROM 1 FOR 5)",
            OTHER + 1,
        ),
        (
            "access_token = '', lifetime = -1, expires_at = 9223372036854775807",
            OTHER + 2,
        ),
    ] {
        assert_redeems_again(&mut cluster, set, other).await;
    }
    cluster.wait_until_recovered().await;
    cluster.assert_purges_reach_all(POISONED, 1).await;
}

async fn assert_redeems_again(cluster: &mut Cluster, set: &str, other: usize) {
    cluster
        .server
        .psql(&format!("UPDATE usage_proxy.token SET {set}"));
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let answer = replica.ask(other).await;

    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_customer_is_not_served() {
    let mut cluster = Cluster::start(&[]).await;
    cluster.warm_up(POISONED).await;
    assert_eq!(cluster.replicas[0].ask(OTHER).await.status, 200);
    cluster.wait_until_stored(OTHER).await;
    let [poisoned, other] = [POISONED, OTHER].map(|customer| cluster.world().id(customer));
    let number = |id| format!("(SELECT id FROM usage_proxy.customer WHERE customer_id = '{id}')");
    cluster.server.psql(&format!(
        "UPDATE usage_proxy.native_body b SET bytes = o.bytes, codec = o.codec, length = o.length
        FROM usage_proxy.native_body o WHERE b.customer = {} AND o.customer = {}",
        number(poisoned),
        number(other)
    ));
    cluster.replicas[1].kill();

    cluster.revive(1).await;
    let replica = &cluster.replicas[1];
    wait_until_up(replica).await;
    let url = format!(
        "{}/v1/customers/{poisoned}/analytics/licenses/usage",
        replica.service.api
    );
    let answer = get(&url, &[]).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_has(&answer.body, &[&poisoned.to_string()]);
    assert!(!answer.body.contains(&other.to_string()), "{answer:?}");
    let stderr = &replica.service.running.stderr;
    stderr.line_with("is not of its customer").await;
}

//! Tokens, on a database and behind PgBouncer.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::fixtures::TestPlace;
use crate::{
    domain::UpstreamApi,
    sealing::{KeyId, SealedSecret},
    store::{Coordination, SealedTokens, UsageStore},
};

const HOUR: Duration = Duration::from_secs(3600);

fn tokens(refresh_token: &str) -> SealedTokens {
    let key_id = KeyId::parse("0123456789abcdef").unwrap();
    let sealed = |text: &str| SealedSecret {
        key_id,
        bytes: text.as_bytes().to_vec(),
    };
    SealedTokens {
        key_id,
        refresh_token: Some(sealed(refresh_token)),
        access_token: None,
        remaining: HOUR,
        lifetime: 2 * HOUR,
        origins: vec![[1; 32], [2; 32]],
    }
}

async fn swap(store: &dyn Coordination, seen: Option<i64>, refresh_token: &str) -> Option<i64> {
    let swapped = store.swap_tokens("account".into(), seen, tokens(refresh_token));
    swapped.await.unwrap()
}

async fn tokens_are_replaced_only_if_they_are_those_that_were_seen(place: TestPlace) {
    let stores: [Arc<dyn UsageStore>; 2] = [
        place.open(UpstreamApi::Insights).await,
        place.open(UpstreamApi::Insights).await,
    ];
    let [one, two] = [&stores[0], &stores[1]].map(|store| store.coordination().unwrap());
    assert!(one.tokens("account".into()).await.unwrap().is_none());

    let first = swap(one, None, "first").await.unwrap();
    let contenders = (0..8).map(|index| swap([one, two][index % 2], Some(first), "second"));
    let swapped = join_all(contenders).await;
    let too_late = swap(two, None, "third").await;

    let swapped: Vec<_> = swapped.into_iter().flatten().collect();
    assert_eq!((swapped.len(), too_late), (1, None));
    assert!(swapped[0] > first);
    let found = two.tokens("account".into()).await.unwrap().unwrap();
    assert_eq!(found.version, swapped[0]);
    assert!(found.age < HOUR);
    let expected = tokens("second");
    assert_eq!(found.tokens.key_id, expected.key_id);
    assert_eq!(found.tokens.refresh_token, expected.refresh_token);
    assert_eq!(found.tokens.access_token, None);
    assert_eq!(found.tokens.origins, expected.origins);
    assert_eq!(found.tokens.lifetime, 2 * HOUR);
    assert!(found.tokens.remaining <= HOUR && found.tokens.remaining > HOUR / 2);
    assert!(one.tokens("another".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn on_postgres() {
    tokens_are_replaced_only_if_they_are_those_that_were_seen(TestPlace::database()).await;
}

#[tokio::test]
async fn behind_pgbouncer() {
    tokens_are_replaced_only_if_they_are_those_that_were_seen(TestPlace::pooled()).await;
}

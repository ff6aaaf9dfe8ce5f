//! The list of customers, as the service tells it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{CustomerEntry, CustomerList, Customers, ListedCustomer, Scopes},
    render::customers::Shown,
};

const THREE: Step = Step::Lists(&[(3, "Contoso"), (1, "litware"), (2, "Adatum")]);

fn id(number: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

pub(super) fn list(customers: &[(u128, &str)]) -> CustomerList {
    let listed = customers.iter().map(|(number, name)| ListedCustomer {
        entry: CustomerEntry {
            id: id(*number),
            name: (*name).into(),
            domain: None,
        },
        raw: format!("{{\"id\":\"{}\"}}", id(*number)).into(),
    });
    CustomerList::new(listed.collect())
}

fn caller(customers: Customers, scope: Scope) -> Caller {
    Caller::new("portal", customers, Scopes::from_iter([scope]))
}

impl Fixture {
    async fn customers_of(&self, caller: &Caller) -> Result<Answer, Unanswered> {
        let now = self.clock.now();
        self.usage
            .list(Directive::Any, caller, CallTrace::default, now)
            .await
    }

    /// What of an answer a caller is shown: ids.
    async fn shown(&self, answer: &Answer, caller: &Caller) -> Vec<Value> {
        let prepared = &answer.held.prepared;
        let shown = self
            .usage
            .show_customers(prepared, caller, None, Coding::Identity);
        let body = match shown.await.unwrap().unwrap() {
            Shown::Part(part) => {
                let part = part.ready(Coding::Identity);
                part.unwrap().body().to_vec()
            }
            Shown::Whole => {
                let whole = prepared.ready(Form::Native, Coding::Identity);
                whole.unwrap().1.body().to_vec()
            }
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].clone()).collect()
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    let index = answer.held.prepared.customers().unwrap();
    index.entries().map(|entry| entry.name.as_str()).collect()
}

#[tokio::test]
async fn a_caller_is_told_its_customers_by_name_and_how_old_they_are() {
    let fixture = Fixture::new([THREE]);
    let its = Customers::Only(Arc::new(HashSet::from([id(3), id(1), id(9)])));

    let all = fixture.customers_of(&Caller::anonymous()).await.unwrap();
    fixture.clock.advance(5 * SECOND);
    let its = caller(its, Scope::UsageRead);
    let own = fixture.customers_of(&its).await.unwrap();

    assert_eq!(names(&all), ["Adatum", "Contoso", "litware"]);
    assert_eq!(all.result, CacheResult::Miss);
    let own_ids = [3, 1].map(|number| json!(id(number).to_string()));
    assert_eq!(fixture.shown(&own, &its).await, own_ids);
    assert_eq!(fixture.shown(&all, &Caller::anonymous()).await.len(), 3);
    assert_eq!(own.result, CacheResult::Hit);
    assert_eq!(own.held.age, 5 * SECOND);
    assert_eq!(fixture.script.asked(), 1);
}

#[tokio::test]
async fn who_may_read_nothing_is_refused_before_anything_is_asked() {
    let fixture = Fixture::new([]);
    let refresher = caller(Customers::All, Scope::CacheRefresh);

    let refused = fixture.customers_of(&refresher).await.unwrap_err();

    assert!(matches!(refused.cause, Cause::NotAllowed));
    assert_eq!(fixture.script.asked(), 0);
}

#[tokio::test]
async fn an_older_list_stands_in_for_a_failure() {
    let fixture = Fixture::new([THREE, Step::Fails(SourceErrorKind::TimedOut)]);
    fixture.customers_of(&Caller::anonymous()).await.unwrap();
    fixture.clock.advance(130 * SECOND);

    let stale = fixture.customers_of(&Caller::anonymous()).await.unwrap();

    assert_eq!(names(&stale).len(), 3);
    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(stale.status.detail, Some("stale-if-error"));
}

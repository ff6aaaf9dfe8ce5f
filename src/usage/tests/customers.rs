//! The list of customers, as the service tells it.

use std::collections::HashSet;

use super::*;
use crate::domain::{CustomerEntry, CustomerList, Customers, ListedCustomer, Scopes};

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
    async fn customers_of(&self, caller: &Caller) -> Result<CustomersAnswer, Unanswered> {
        let now = self.clock.now();
        self.usage
            .customers(Directive::Any, caller, CallTrace::default, now)
            .await
    }
}

fn names(answer: &CustomersAnswer) -> Vec<&str> {
    let names = answer.customers.iter();
    names.map(|entry| entry.name.as_str()).collect()
}

#[tokio::test]
async fn a_caller_is_told_its_customers_by_name_and_how_old_they_are() {
    let fixture = Fixture::new([THREE]);
    let its = Customers::Only(Arc::new(HashSet::from([id(3), id(1), id(9)])));

    let all = fixture.customers_of(&Caller::anonymous()).await.unwrap();
    fixture.clock.advance(5 * SECOND);
    let own = fixture
        .customers_of(&caller(its, Scope::UsageRead))
        .await
        .unwrap();

    assert_eq!(names(&all), ["Adatum", "Contoso", "litware"]);
    assert_eq!(all.answer.result, CacheResult::Miss);
    assert_eq!(names(&own), ["Contoso", "litware"]);
    assert_eq!(own.answer.result, CacheResult::Hit);
    assert_eq!(own.answer.held.age, 5 * SECOND);
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
    assert_eq!(stale.answer.result, CacheResult::Stale);
    assert_eq!(stale.answer.status.detail, Some("stale-if-error"));
}

//! The list of customers, as the service tells it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{CustomerAccess, CustomerEntry, CustomerList, ListedCustomer, ScopeSet},
    render::customers::VisibleCustomers,
};

const THREE_CUSTOMERS: SourceStep =
    SourceStep::Customers(&[(3, "Contoso"), (1, "litware"), (2, "Adatum")]);

fn numbered_id(number: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

pub(super) fn customer_list(customers: &[(u128, &str)]) -> CustomerList {
    let listed = customers.iter().map(|(number, name)| ListedCustomer {
        entry: CustomerEntry {
            id: numbered_id(*number),
            name: (*name).into(),
            domain: None,
        },
        raw: format!("{{\"id\":\"{}\"}}", numbered_id(*number)).into(),
    });
    CustomerList::new(listed.collect())
}

fn caller_with(customers: CustomerAccess, scope: CallerScope) -> Caller {
    Caller::new("portal", customers, ScopeSet::from_iter([scope]))
}

impl ServiceFixture {
    async fn customer_list_as(&self, caller: &Caller) -> Result<UsageAnswer, UsageError> {
        let now = self.clock.now();
        self.service
            .customer_list(CacheDirective::Any, caller, CallTrace::default, now)
            .await
    }

    /// What of an answer a caller is shown: ids.
    async fn visible_ids(&self, answer: &UsageAnswer, caller: &Caller) -> Vec<Value> {
        let prepared = &answer.cached.rendered;
        let shown = self
            .service
            .visible_customers(prepared, caller, None, ContentCoding::Identity);
        let body = match shown.await.unwrap().unwrap() {
            VisibleCustomers::Part(part) => {
                let part = part.ready(ContentCoding::Identity);
                part.unwrap().body().to_vec()
            }
            VisibleCustomers::Whole => {
                let whole = prepared.ready(Format::Native, ContentCoding::Identity);
                whole.unwrap().1.body().to_vec()
            }
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].clone()).collect()
    }
}

fn listed_names(answer: &UsageAnswer) -> Vec<&str> {
    let index = answer.cached.rendered.customers().unwrap();
    index.entries().map(|entry| entry.name.as_str()).collect()
}

#[tokio::test]
async fn a_caller_gets_its_own_customers_by_name_with_their_age() {
    let fixture = ServiceFixture::new([THREE_CUSTOMERS]);
    let its = CustomerAccess::Only(Arc::new(HashSet::from([
        numbered_id(3),
        numbered_id(1),
        numbered_id(9),
    ])));

    let all = fixture
        .customer_list_as(&Caller::anonymous())
        .await
        .unwrap();
    fixture.clock.advance(5 * SECOND);
    let its = caller_with(its, CallerScope::UsageRead);
    let own = fixture.customer_list_as(&its).await.unwrap();

    assert_eq!(listed_names(&all), ["Adatum", "Contoso", "litware"]);
    assert_eq!(all.result, CacheResult::Miss);
    let own_ids = [3, 1].map(|number| json!(numbered_id(number).to_string()));
    assert_eq!(fixture.visible_ids(&own, &its).await, own_ids);
    assert_eq!(
        fixture.visible_ids(&all, &Caller::anonymous()).await.len(),
        3
    );
    assert_eq!(own.result, CacheResult::Hit);
    assert_eq!(own.cached.age, 5 * SECOND);
    assert_eq!(fixture.source.calls(), 1);
}

#[tokio::test]
async fn a_caller_without_read_access_is_rejected_before_any_fetch() {
    let fixture = ServiceFixture::new([]);
    let refresher = caller_with(CustomerAccess::All, CallerScope::CacheRefresh);

    let refused = fixture.customer_list_as(&refresher).await.unwrap_err();

    assert!(matches!(refused.kind, ErrorKind::NotAllowed));
    assert_eq!(fixture.source.calls(), 0);
}

#[tokio::test]
async fn a_stale_list_is_served_after_a_failure() {
    let fixture = ServiceFixture::new([
        THREE_CUSTOMERS,
        SourceStep::Fails(SourceErrorKind::TimedOut),
    ]);
    fixture
        .customer_list_as(&Caller::anonymous())
        .await
        .unwrap();
    fixture.clock.advance(130 * SECOND);

    let stale = fixture
        .customer_list_as(&Caller::anonymous())
        .await
        .unwrap();

    assert_eq!(listed_names(&stale).len(), 3);
    assert_eq!(stale.result, CacheResult::Stale);
    assert_eq!(stale.status.detail, Some("stale-if-error"));
}
